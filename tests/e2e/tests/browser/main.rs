//! The status page in a real browser. Nothing runs beside it: what it takes to draw is measured.

mod many;
mod page;
