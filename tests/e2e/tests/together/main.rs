//! Tests that mostly wait and take nothing from each other, in one program: cargo runs one program after
//! the other, but the tests of one side by side.
//!
//! Nothing here may kill, replace or reconfigure what others use, nor count what they do.

mod dashboards;
mod kubectl_lull;
mod quickstart;
mod status_page;
mod tickets;
