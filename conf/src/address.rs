//! What may stand for a place on the network: hosts, `host:port`, URLs; and which addresses are
//! not the internet's.
//!
//! Absent on purpose: nothing here resolves a name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{Uri, uri::Authority};

/// A URL that can be asked by plain HTTP or over TLS.
pub(crate) fn is_url(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let port = |authority: &Authority| match authority.as_str().rsplit_once(':') {
        // Behind a name or a bracket it is a port.
        Some((before, port)) if !before.contains(':') || before.ends_with(']') => is_port(port),
        _ => true,
    };
    let fine = |authority: &Authority| is_host(authority.host()) && port(authority);
    matches!(url.scheme_str(), Some("http" | "https"))
        && url
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@') && fine(authority))
}

/// A URL that nobody on the way can read: over TLS, or on loopback.
pub(crate) fn is_safe_url(url: &str) -> bool {
    let loopback = || {
        host_of(url).is_some_and(|host| {
            is_localhost(&host) || literal(&host).is_some_and(|ip| ip.is_loopback())
        })
    };
    is_url(url) && (url.starts_with("https://") || loopback())
}

/// A URL whose host is, as it is written, not on the internet.
pub(crate) fn is_private_url(url: &str) -> bool {
    host_of(url).is_some_and(|host| is_localhost(&host) || literal(&host).is_some_and(is_private))
}

fn host_of(url: &str) -> Option<String> {
    url.parse::<Uri>().ok()?.host().map(str::to_owned)
}

/// RFC 6761, section 6.3.
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// An address, where a URL's host is one.
fn literal(host: &str) -> Option<IpAddr> {
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    v6.unwrap_or(host).parse().ok()
}

/// A domain name, or an address, as URLs have it.
pub(crate) fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok()),
        None => is_host_name(host),
    }
}

/// A domain name: RFC 1035, section 2.3.1, and underscores.
pub(crate) fn is_host_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(fine)
    };
    (1..=253).contains(&name.len()) && name.split('.').all(label)
}

/// A host and a port, where both are what they should be.
pub(crate) fn split_target(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    Some((host, port.parse().ok()?)).filter(|(host, port)| is_host(host) && *port > 0)
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Whether an address is none of the internet's: of this machine, of this network, of a private one
/// or of nobody (RFC 6890). IPv6 addresses that stand for such an IPv4 address are as private.
///
/// Where a provider may be is decided by this when it is connected to: a name that resolved to the
/// internet when the file was read may resolve to a machine of ours later.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => embedded_v4(v6).map_or_else(|| is_private_v6(v6), is_private_v4),
    }
}

fn is_private_v4(v4: Ipv4Addr) -> bool {
    // Behind the net of a carrier or a cloud (RFC 6598); some clouds keep credentials there.
    let shared = matches!(v4.octets(), [100, 64..=127, ..]);
    let nobody = v4.octets()[0] == 0 || v4.is_multicast() || v4.octets()[0] >= 240;
    // Protocols' own (RFC 6890), where a cloud has its metadata; and for measuring (RFC 2544).
    let special = matches!(v4.octets(), [192, 0, 0, _] | [198, 18..=19, ..]);
    v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared || special || nobody
}

fn is_private_v6(v6: Ipv6Addr) -> bool {
    v6.is_loopback()
        || v6.is_unspecified()
        || v6.is_unique_local()
        || v6.is_unicast_link_local()
        // Local NAT64 (RFC 8215), and what was site-local (RFC 3879).
        || matches!(v6.segments(), [0x64, 0xff9b, 1, ..] | [0xfec0..=0xfeff, ..])
        || v6.is_multicast()
}

/// The IPv4 address that packets to this one end at: mapped, by NAT64 (RFC 6052) or by 6to4.
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let at = match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => 12,
        [0x2002, ..] => 2,
        _ => return None,
    };
    let four: [u8; 4] = v6.octets()[at..at + 4].try_into().ok()?;
    Some(four.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_internets_is_private() {
        let check = |address: &str, expected| {
            assert_eq!(is_private(address.parse().unwrap()), expected, "{address}");
        };
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::169.254.169.254",
            "2002:7f00:1::",
            "192.0.0.192",
            "198.19.0.1",
            "64:ff9b:1::1",
            "fec0::1",
        ] {
            check(address, true);
        }
        for address in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::",
        ] {
            check(address, false);
        }
    }

    #[test]
    fn a_target_is_a_host_with_a_port() {
        let check = |text, expected| assert_eq!(split_target(text), expected, "{text}");
        check("pods.example.com:8091", Some(("pods.example.com", 8091)));
        check("192.0.2.1:1", Some(("192.0.2.1", 1)));
        check("[2001:db8::1]:8443", Some(("[2001:db8::1]", 8443)));
        for text in ["pods", "pods:", "pods:0", ":1", "2001:db8::1:8443", "a b:1", "a:65536"] {
            check(text, None);
        }
    }

    #[test]
    fn a_safe_url_has_tls_or_stays_on_this_machine() {
        let check = |url, expected| assert_eq!(is_safe_url(url), expected, "{url}");
        check("https://example.com/keys", true);
        check("http://127.0.0.1:1/", true);
        check("http://[::1]/", true);
        check("http://localhost:8080/x", true);
        check("http://example.com/", false);
        check("http://localhost.example.com/", false);
        check("http://127.0.0.1@example.com/", false);
        check("http://10.0.0.1/", false);
        check("ftp://127.0.0.1/", false);
    }

    #[test]
    fn a_private_url_is_seen_by_its_host_alone() {
        let check = |url, expected| assert_eq!(is_private_url(url), expected, "{url}");
        check("https://10.0.0.1/v1", true);
        check("https://[fd00::1]:8443/v1", true);
        check("https://LOCALHOST/v1", true);
        check("https://llm.localhost./v1", true);
        check("https://api.example.com/v1", false);
        check("https://192.0.2.1/v1", false);
        check("nothing", false);
    }
}
