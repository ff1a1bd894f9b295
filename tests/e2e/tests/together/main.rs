//! Tests that mostly wait and take nothing from each other, in one program: cargo runs one program after
//! the other, but the tests of one side by side.
//!
//! Nothing here may kill, replace or reconfigure what others use, count what they do, load the machine to
//! its limit, or hold what it sees to a limit that a busy machine breaks.

mod anew;
mod apps;
mod cycles;
mod dashboards;
mod guides;
mod helm_test;
mod kinds;
mod kubectl_lull;
mod plan;
mod quickstart;
mod reapplied;
mod room;
mod status_page;
mod tickets;
mod tools;
