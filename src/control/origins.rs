//! Whose page asks, and for whom a proxy asks: what the headers say, and how far they are believed.
//!
//! A browser names the page's origin (`Origin`, RFC 6454); programs name none, and are not restricted by what
//! they would only have to leave out. CORS as in the Fetch standard, "HTTP extensions".

use std::net::IpAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::{Http, Network, Origins};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Seconds for which a browser need not ask again what it may ask.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Whose page a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No page, or one that this server gave.
    Own,
    /// A page of a host that is on the list.
    Listed(HeaderValue),
    /// Any other.
    Foreign,
}

/// The settings that headers are held against.
pub struct Headers {
    origins: Origins,
    proxies: Vec<Network>,
    /// Where this server speaks TLS itself, its own pages are https. Behind a proxy they may be either.
    own_scheme: Option<&'static str>,
}

impl Headers {
    /// As the operator wants it.
    pub fn new(http: &Http) -> Self {
        let own_scheme = http.tls.is_some().then_some("https");
        Self { origins: http.origins.clone(), proxies: http.proxies.clone(), own_scheme }
    }

    /// Whether `address` is a proxy that is believed.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
    }

    /// Whose request it is that `from` sends: the last in `X-Forwarded-For` whom a believed proxy saw and who
    /// is not one.
    pub fn client(&self, from: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = from;
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        for hop in hops {
            if !self.is_proxy(client) {
                break;
            }
            let Ok(address) = hop.trim().parse() else { break };
            client = address;
        }
        client
    }

    /// Whose page asks through `from`.
    pub fn standing(&self, from: IpAddr, headers: &HeaderMap) -> Standing {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return Standing::Own };
        let (Ok(text), None) = (origin.to_str(), origins.next()) else { return Standing::Foreign };
        let text = text.to_ascii_lowercase();
        if self.is_own(&text, self.host(from, headers)) {
            return Standing::Own;
        }
        let listed = match &self.origins {
            Origins::Any => true,
            Origins::Listed(listed) => listed.contains(&text),
        };
        if listed { Standing::Listed(origin.clone()) } else { Standing::Foreign }
    }

    fn host<'a>(&self, from: IpAddr, headers: &'a HeaderMap) -> Option<&'a str> {
        let forwarded = headers.get(FORWARDED_HOST).filter(|_| self.is_proxy(from));
        forwarded.or_else(|| headers.get(header::HOST)).and_then(|host| host.to_str().ok())
    }

    /// Whether a page of `origin` came from `host`, this server's name in the same request.
    fn is_own(&self, origin: &str, host: Option<&str>) -> bool {
        let (Some((scheme, authority)), Some(host)) = (origin.split_once("://"), host) else {
            return false;
        };
        let default = if scheme == "https" { ":443" } else { ":80" };
        let host = host.strip_suffix(default).unwrap_or(host);
        authority.eq_ignore_ascii_case(host) && self.own_scheme.is_none_or(|own| own == scheme)
    }
}

/// Lets a page of `origin` read the answer.
pub fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

/// Answers a browser that asks what its page may ask.
pub fn preflight(headers: &mut HeaderMap, methods: &'static str) {
    let methods = HeaderValue::from_static(methods);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let names = HeaderValue::from_static("authorization, content-type");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsFiles;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    fn behind_proxy() -> Headers {
        let proxies = vec!["10.0.0.0/8".parse().unwrap()];
        Headers::new(&Http { proxies, ..Http::default() })
    }

    fn standing(of: &Headers, host: &'static str, origin: &'static str) -> Standing {
        of.standing(CLIENT, &headers(&[(header::HOST, host), (header::ORIGIN, origin)]))
    }

    #[test]
    fn pages_of_the_own_host_and_programs_are_let_in() {
        let plain = Headers::new(&Http::default());
        assert_eq!(plain.standing(CLIENT, &headers(&[(header::HOST, "a")])), Standing::Own);
        for (host, origin) in [
            ("localhost:3000", "http://localhost:3000"),
            ("Sfu.Example.org", "https://sfu.example.org"),
            ("sfu.example.org:443", "https://sfu.example.org"),
            ("[::1]:3000", "http://[::1]:3000"),
        ] {
            assert_eq!(standing(&plain, host, origin), Standing::Own, "{origin}");
        }
        for (host, origin) in [
            ("localhost:3000", "http://localhost:5173"),
            ("sfu.example.org", "https://sfu.example.org.evil.example"),
            ("sfu.example.org", "https://evil.example"),
            ("sfu.example.org", "null"),
            ("sfu.example.org", ""),
        ] {
            assert_eq!(standing(&plain, host, origin), Standing::Foreign, "{origin}");
        }
        let two = [(header::HOST, "a"), (header::ORIGIN, "http://a"), (header::ORIGIN, "http://b")];
        assert_eq!(plain.standing(CLIENT, &headers(&two)), Standing::Foreign);
        assert_eq!(plain.standing(CLIENT, &headers(&two[1..2])), Standing::Foreign, "no host");
    }

    #[test]
    fn own_pages_are_https_where_the_server_is() {
        let files = TlsFiles { certificate: "c".into(), key: "k".into() };
        let secure = Headers::new(&Http { tls: Some(files), ..Http::default() });
        assert_eq!(standing(&secure, "a", "https://a"), Standing::Own);
        assert_eq!(standing(&secure, "a", "http://a"), Standing::Foreign);
    }

    #[test]
    fn listed_pages_are_let_in() {
        let origins = Origins::Listed(vec!["https://app.example.org".to_owned()]);
        let list = Headers::new(&Http { origins, ..Http::default() });
        let app = "https://app.example.org";
        let listed = Standing::Listed(HeaderValue::from_static(app));
        assert_eq!(standing(&list, "sfu.example.org", app), listed);
        assert_eq!(standing(&list, "sfu.example.org", "http://app.example.org"), Standing::Foreign);
        let any = Headers::new(&Http { origins: Origins::Any, ..Http::default() });
        let null = Standing::Listed(HeaderValue::from_static("null"));
        assert_eq!(standing(&any, "sfu.example.org", "null"), null);
    }

    #[test]
    fn a_proxy_is_believed_and_nobody_else() {
        let of = behind_proxy();
        let claims = headers(&[
            (header::HOST, "127.0.0.1:3000"),
            (FORWARDED_HOST, "sfu.example.org"),
            (header::ORIGIN, "https://sfu.example.org"),
        ]);
        assert_eq!(of.standing(PROXY, &claims), Standing::Own);
        assert_eq!(of.standing(CLIENT, &claims), Standing::Foreign);
    }

    #[test]
    fn the_client_is_the_last_whom_a_proxy_saw() {
        let of = behind_proxy();
        let client = |from: IpAddr, lines: &[&'static str]| {
            let lines: Vec<_> = lines.iter().map(|line| (FORWARDED_FOR, *line)).collect();
            of.client(from, &headers(&lines)).to_string()
        };
        assert_eq!(client(PROXY, &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client(PROXY, &["203.0.113.66, 198.51.100.1"]), "198.51.100.1", "its own claim");
        assert_eq!(client(PROXY, &["198.51.100.1, 10.9.9.9"]), "198.51.100.1");
        assert_eq!(client(PROXY, &["198.51.100.1", "10.9.9.9"]), "198.51.100.1");
        assert_eq!(client(PROXY, &["rubbish"]), "10.0.0.1");
        assert_eq!(client(PROXY, &[]), "10.0.0.1");
        assert_eq!(client(CLIENT, &["198.51.100.1"]), "192.0.2.1", "no proxy");
    }
}
