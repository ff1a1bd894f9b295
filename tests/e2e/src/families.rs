//! Address families of a Service: where it is called in each of them.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;

use crate::Workload;

/// The port of every Service of the suite that speaks HTTP.
const PORT: u16 = 80;

/// The addresses of the workload's Service, one of each of its families, the first family first.
///
/// # Errors
/// Where the Service can't be had, or has something else than addresses.
pub async fn addresses(workload: &Workload) -> anyhow::Result<Vec<IpAddr>> {
    let service = workload.service_json().await?;
    let addresses = service["spec"]["clusterIPs"].as_array();
    let addresses = addresses.context("the Service has no addresses")?;
    let parsed = addresses.iter().map(|address| {
        let text = address.as_str().unwrap_or_default();
        text.parse()
            .with_context(|| format!("the Service has an address {address}"))
    });
    parsed.collect()
}

/// URL of port 80 of `address` with `path`.
#[must_use]
pub fn url(address: IpAddr, path: &str) -> String {
    format!("http://{}{path}", SocketAddr::new(address, PORT))
}

/// Name of the address's family, as Services and slices have it.
#[must_use]
pub fn name(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_called_as_urls_write_its_family() {
        for (address, family, expected) in [
            ("10.96.0.1", "IPv4", "http://10.96.0.1:80/a"),
            ("fd10:96::1", "IPv6", "http://[fd10:96::1]:80/a"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(
                (name(address), url(address, "/a")),
                (family, expected.to_owned())
            );
        }
    }
}
