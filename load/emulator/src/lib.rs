//! Several regions on one machine: sites of real processes, each with an address of its own, and
//! delay, loss and cuts between any two, for tests that must see what a far region looks like.
//!
//! ```text
//!   namespace us-west         namespace eu-west                 the test's own ("host")
//!   ┌────────────────┐        ┌────────────────┐                ┌──────────────────┐
//!   │ real processes │        │ real processes │                │ the test itself  │
//!   │   10.x.y.1     │        │   10.x.y.2     │                │   10.x.y.254     │
//!   └──────TUN───────┘        └──────TUN───────┘                └───────TUN────────┘
//!           │                         │                                 │
//!   ┌───────┴─────────────────────────┴─────────────────────────────────┴────────┐
//!   │ one thread of this process: reads a packet, asks its direction (link.rs,   │
//!   │ pure) whether it passes and when it is due, and writes it out at that time │
//!   └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use nearhop_emulator::{Emulator, HOST};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let wan = Emulator::start(&["us-west", "eu-west", "ap-south"])?;
//! wan.link("us-west", "eu-west").delay(Duration::from_millis(70)).jitter(Duration::from_millis(5));
//! wan.link_one_way("us-west", "ap-south").loss(0.02);
//!
//! let site = wan.site("us-west");
//! let server = site.command("nearhop").arg("edge").spawn()?; // reached at site.address()
//! wan.cut_one_way("eu-west", "us-west"); // us-west still speaks to eu-west, and hears nothing
//! wan.isolate("ap-south"); // from the other sites; the test still reaches it
//! wan.cut("ap-south", HOST); // and now it does not
//! # drop(server);
//! # Ok(())
//! # }
//! ```
//!
//! It needs Linux, root (or `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`), `/dev/net/tun` and the program `ip`;
//! [`Error::Missing`] says which of them is not there, so that a test can be skipped aloud. Elsewhere it
//! builds, and says the same. Kernels have netem for this, but not every kernel, and it has no one-way
//! cuts without a packet filter; here all of it is a hundred lines of plain decisions.
//!
//! What it does not do: IPv6, limits of bandwidth, reordering (packets of one direction stay in order,
//! whatever the jitter), fragments over the MTU of 1500. A site's packets must carry its own address as
//! their source and another site's as their destination; others are dropped, so that a wrong address
//! waits for its deadline, as it would in the world. A site has one address, and no way out.
//!
//! Emulators do not collide: each has a subnet of its own in 10.128.0.0/9, and namespaces that carry the
//! process's id. What a killed process left behind is removed by the next start.
//!
//! A [`Disk`] is a small file system that really fills up, for what a site's processes write.

mod clock;
mod disk;
mod emulator;
mod error;
mod forward;
mod link;
mod namespace;
mod packet;
pub mod process;
mod tun;

pub use disk::Disk;
pub use emulator::{Emulator, HOST, Link, Site};
pub use error::Error;
pub use link::Counts;

#[cfg(test)]
mod tests;
