//! Namespaces, addresses and routes, by the program `ip`: its commands are what a reader would type, and
//! netlink from Rust would be three dependencies.

use std::{
    io::{self, ErrorKind},
    net::Ipv4Addr,
    process::{Command, Output},
    sync::{Mutex, PoisonError},
};

use crate::{error::Error, process, tun::Tun};

/// Subnets of 256 addresses in 10.128.0.0/9.
const SUBNETS: u32 = 1 << 15;
/// More than a machine has cores for emulators.
const SUBNETS_TRIED_MAX: u32 = 256;

/// A named network namespace. It goes with this value; processes that still run in it keep theirs, with
/// no device to speak through.
#[derive(Debug)]
pub(crate) struct Namespace(String);

impl Namespace {
    /// Makes a namespace for a site, with `tun` (made under `device`) as its only way out.
    pub(crate) fn create(name: String, device: &str, address: Ipv4Addr) -> Result<Self, Error> {
        ip(&["netns", "add", &name]).map_err(|error| match error {
            // The first thing that needs CAP_SYS_ADMIN.
            Error::Ip { said, .. } => {
                Error::Missing(format!("the right to make network namespaces: {said}"))
            }
            other => other,
        })?;
        let namespace = Self(name);
        let name = namespace.name();
        ip(&["link", "set", device, "netns", name])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        bring_up(&["-n", name], device, address)?;
        ip(&["-n", name, "route", "add", "default", "dev", device])?;
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Somebody may have removed it; the next start tries again in any case.
        let _ = ip(&["netns", "del", &self.0]);
    }
}

/// The addresses of one emulator: `10.x.y.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet(u32);

impl Subnet {
    pub(crate) const HOST: u8 = 254;

    /// Claims a free subnet for the host's device, by its route: of two who add the same one, the kernel
    /// refuses the second.
    pub(crate) fn claim(start: u32, device: &str) -> Result<Self, Error> {
        ip(&["link", "set", device, "up"])?;
        for offset in 0..SUBNETS_TRIED_MAX {
            let subnet = Self(start.wrapping_add(offset) % SUBNETS);
            let prefix = format!("{}/24", subnet.address(0));
            if in_use(&prefix)? {
                continue;
            }
            match ip(&["route", "add", &prefix, "dev", device]) {
                Ok(_) => {
                    bring_up(&[], device, subnet.address(Self::HOST))?;
                    return Ok(subnet);
                }
                // Somebody was faster.
                Err(_) if in_use(&prefix)? => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Subnets(SUBNETS_TRIED_MAX))
    }

    pub(crate) fn address(self, host: u8) -> Ipv4Addr {
        let [_, _, high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(10, 128 | high, low, host)
    }
}

/// Is there a route to this prefix, or to a part of it? A wider one is the machine's way to everywhere.
fn in_use(prefix: &str) -> Result<bool, Error> {
    Ok(!ip(&["-4", "route", "show", "root", prefix])?.is_empty())
}

fn bring_up(place: &[&str], device: &str, address: Ipv4Addr) -> Result<(), Error> {
    let address = format!("{address}/32");
    // The kernel's own queue, so that a burst is dropped where it is counted.
    ip(&[place, &["link", "set", device, "mtu", "1500", "txqueuelen", "4096", "up"]].concat())?;
    ip(&[place, &["addr", "add", &address, "dev", device]].concat())?;
    Ok(())
}

/// Names for devices and namespaces of this process. The first call of a process, and every later one,
/// removes what processes left behind that are no more.
pub(crate) fn names(count: u32) -> Result<Vec<String>, Error> {
    static NEXT: Mutex<u32> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    let own = std::process::id();
    // Before its first name, what carries this process's id was an earlier one's.
    let fresh = *next == 0;
    for name in ip(&["netns", "list"])?.lines().filter_map(|line| line.split_whitespace().next()) {
        let left_behind =
            owner(name).is_some_and(|id| if id == own { fresh } else { !process::exists(id) });
        if left_behind {
            // Two starts may see the same one.
            drop(Namespace(name.to_owned()));
        }
    }
    let first = *next;
    *next += count;
    Ok((first..*next).map(|number| format!("nh{own}-{number}")).collect())
}

/// Whose namespace this is, if it is an emulator's.
fn owner(name: &str) -> Option<u32> {
    let (id, number) = name.strip_prefix("nh")?.split_once('-')?;
    number.parse::<u32>().ok()?;
    id.parse().ok()
}

/// Makes sure that an emulator can run here, and says all that is missing.
pub(crate) fn check() -> Result<(), Error> {
    let mut missing = Vec::new();
    if cfg!(not(target_os = "linux")) {
        missing.push("Linux".to_owned());
    }
    if !nix::unistd::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    if let Err(error) = Tun::open() {
        missing.push(format!("{} ({error})", crate::tun::PATH));
    }
    if let Err(error) = ip_output(&["-Version"]) {
        missing.push(format!("the program `ip` of iproute2 ({error})"));
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Missing(missing.join(", "))) }
}

/// Makes a device in this process's own namespace.
pub(crate) fn device(name: &str) -> Result<Tun, Error> {
    Tun::create(name).map_err(|source| match source.kind() {
        // Root in a container, maybe, without CAP_NET_ADMIN.
        ErrorKind::PermissionDenied => {
            Error::Missing(format!("the right to make network devices: {source}"))
        }
        _ => Error::System { what: "a TUN device could not be made", source },
    })
}

/// Runs `ip`; gives what it says.
fn ip(arguments: &[&str]) -> Result<String, Error> {
    let output = ip_output(arguments)
        .map_err(|source| Error::System { what: "`ip` could not be run", source })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::Ip {
            command: arguments.join(" "),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

fn ip_output(arguments: &[&str]) -> io::Result<Output> {
    Command::new("ip").args(arguments).output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_says_whose_it_is() {
        for (name, expected) in [
            ("nh17-0", Some(17)),
            ("nh4194304-12", Some(4_194_304)),
            ("nh17", None),
            ("nh17-", None),
            ("nh17-a", None),
            ("nh-3", None),
            ("nhx-3", None),
            ("blue", None),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
    }

    #[test]
    fn subnets_fill_the_upper_half_of_ten() {
        for (number, expected) in [
            (0, "10.128.0.1"),
            (1, "10.128.1.1"),
            (256, "10.129.0.1"),
            (SUBNETS - 1, "10.255.255.1"),
        ] {
            assert_eq!(Subnet(number).address(1).to_string(), expected);
        }
    }
}
