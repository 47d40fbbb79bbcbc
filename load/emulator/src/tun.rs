//! A TUN device: a network interface whose other end is a file of ours. Its one `ioctl` is all the
//! `unsafe` there is here; no maintained crate that we would want wraps it without a runtime.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
};

use nix::{
    errno::Errno,
    libc::{self, c_short},
};

pub(crate) const PATH: &str = "/dev/net/tun";

const NAME_MAX: usize = 15;
const IFF_TUN: c_short = 0x0001;
/// Packets as they are, with nothing in front.
const IFF_NO_PI: c_short = 0x1000;

/// The kernel's `struct ifreq`, as far as this request reads it.
#[repr(C)]
struct Request {
    name: [u8; NAME_MAX + 1],
    flags: c_short,
    rest: [u8; 22],
}

/// The file of a device. The device goes when it is closed, even by the end of a killed process.
pub(crate) struct Tun(File);

impl Tun {
    /// The first step, apart because it fails where the machine has no TUN at all.
    pub(crate) fn open() -> io::Result<File> {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(PATH)
    }

    /// Makes a device in this process's network namespace.
    #[expect(unsafe_code, reason = "the kernel makes a TUN device by an ioctl only")]
    pub(crate) fn create(name: &str) -> io::Result<Self> {
        let file = Self::open()?;
        let mut request =
            Request { name: [0; NAME_MAX + 1], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
        if name.len() > NAME_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: 0x400454ca is TUNSETIFF, which reads and writes the 40 bytes of a struct ifreq: `Request`
        // is those 40 bytes, `repr(C)`, all of them initialized, and outlives the call. Its name ends with
        // a zero, as it was zeroed and at most 15 bytes of it were written. The file is open.
        let answer = unsafe { libc::ioctl(file.as_raw_fd(), 0x4004_54ca, &raw mut request) };
        Errno::result(answer)?;
        Ok(Self(file))
    }

    /// The next packet that the device's side sends; `WouldBlock` when there is none.
    pub(crate) fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(packet)
    }

    /// Hands a packet to the device's side.
    pub(crate) fn write(&self, packet: &[u8]) -> io::Result<usize> {
        (&self.0).write(packet)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_as_long_as_the_kernels() {
        assert_eq!(size_of::<Request>(), 40);
    }
}
