//! Tests with limits of seconds, and the one that changes Lull's settings: in a program of their own, few
//! and light enough to stand side by side.

mod admission;
mod harness;
mod liveness;
mod settings;
mod tickets;
