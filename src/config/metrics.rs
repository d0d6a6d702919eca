//! Where `/metrics` is served.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use super::{Unusable, unusable};

/// `METRICS_PORT` and `METRICS_IP`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metrics {
    /// At the address of REST and signaling, and under the same conditions.
    #[default]
    Http,
    /// At an address of its own, without conditions; port 0 lets the kernel choose.
    Own(SocketAddr),
    /// Nowhere.
    Off,
}

// As clap reads them. (A `///` here would become the head of `--help`.)
#[derive(Args)]
pub(super) struct MetricsSettings {
    /// TCP port of /metrics, 0 to 65535; `http`: that of REST; `off`: none.
    #[arg(long, env, default_value = "http")]
    metrics_port: String,
    /// TCP address of /metrics, if it has a port of its own.
    #[arg(long, env, default_value = "127.0.0.1")]
    metrics_ip: String,
}

impl MetricsSettings {
    pub(super) fn validate(&self) -> Result<Metrics, Unusable> {
        let Self { metrics_port: port, metrics_ip: ip } = self;
        let ip: IpAddr = ip
            .parse()
            .map_err(|_| unusable("METRICS_IP", ip, "an IPv4 or IPv6 address of this host"))?;
        match port.to_ascii_lowercase().as_str() {
            "http" => Ok(Metrics::Http),
            "off" => Ok(Metrics::Off),
            _ => match port.parse() {
                Ok(port) => Ok(Metrics::Own(SocketAddr::new(ip, port))),
                Err(_) => {
                    let allowed = "http, off or a whole number from 0 to 65535";
                    Err(unusable("METRICS_PORT", port, allowed))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(port: &str, ip: &str) -> Result<Metrics, Unusable> {
        MetricsSettings { metrics_port: port.to_owned(), metrics_ip: ip.to_owned() }.validate()
    }

    #[test]
    fn they_may_have_an_address_of_their_own() {
        assert_eq!(metrics("9100", "::1"), Ok(Metrics::Own("[::1]:9100".parse().unwrap())));
        assert_eq!(metrics("OFF", "127.0.0.1"), Ok(Metrics::Off));
        assert_eq!(metrics("http", "127.0.0.1"), Ok(Metrics::default()));
        let complaint = |port, ip| metrics(port, ip).unwrap_err().to_string();
        assert!(complaint("all", "::1").starts_with("METRICS_PORT=\"all\""));
        assert!(complaint("70000", "::1").starts_with("METRICS_PORT=\"70000\""));
        assert!(complaint("1", "x").starts_with("METRICS_IP=\"x\""));
    }
}
