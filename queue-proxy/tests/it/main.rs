//! The whole queue-proxy in process, before a real app on loopback.

#[cfg(test)]
mod access_log;
#[cfg(test)]
mod app;
#[cfg(test)]
mod binary;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod http1;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod life;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod program;
#[cfg(test)]
mod seen;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod timeouts;
#[cfg(test)]
mod traces;
