//! Activator and queue-proxy in one process, with a collector: a held request is one trace from its
//! caller to the app. There is nothing but tests here, since the two never depend on each other.

#[cfg(test)]
mod tests;
