//! What happens to a site's process, by its id: that of the `Child`, since `ip netns exec` becomes the
//! program it starts. A child keeps its id until it was waited for; do not name it after that.

use std::io;

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

/// Ends a process at once, as a crash or a lost machine does. Its owner still waits for it.
///
/// # Errors
///
/// No such process, or not ours to signal.
pub fn kill(id: u32) -> io::Result<()> {
    send(id, Signal::SIGKILL)
}

/// Stops a process as it is: its sockets stay open and answer nothing. A child has stopped when this
/// returns.
///
/// # Errors
///
/// No such process, or not ours to signal.
pub fn pause(id: u32) -> io::Result<()> {
    send(id, Signal::SIGSTOP)?;
    #[cfg(target_os = "linux")]
    {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        // An end is left for the owner to collect. An error means that it is no child of ours: it stops soon.
        let _ = waitid(
            Id::Pid(pid(id)?),
            WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
        );
    }
    Ok(())
}

/// Lets a paused process go on.
///
/// # Errors
///
/// No such process, or not ours to signal.
pub fn resume(id: u32) -> io::Result<()> {
    send(id, Signal::SIGCONT)
}

/// Is there such a process? One that nobody waited for yet counts.
#[must_use]
pub fn exists(id: u32) -> bool {
    pid(id).is_ok_and(|pid| signal::kill(pid, None) != Err(nix::errno::Errno::ESRCH))
}

fn send(id: u32, signal: Signal) -> io::Result<()> {
    Ok(signal::kill(pid(id)?, signal)?)
}

/// Never zero or less: those name groups of processes.
fn pid(id: u32) -> io::Result<Pid> {
    match i32::try_from(id) {
        Ok(id) if id > 0 => Ok(Pid::from_raw(id)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}
