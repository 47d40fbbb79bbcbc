//! Notices that standard input has ended, so that children never outlive a killed parent.

use std::{future::Future, io::Read as _};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// Calls `on_end` when standard input ends. Watches on a thread of its own: whatever the rest of
/// the process does, its parent's end is noticed.
pub(crate) fn hold(on_end: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    wake_at_parents_end();
    let watch = move || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
        on_end();
    };
    std::thread::Builder::new().name("lifeline".to_owned()).spawn(watch)?;
    Ok(())
}

/// A process that was stopped notices nothing: at its parent's end it goes on, and notices. To one that
/// runs the signal says nothing.
fn wake_at_parents_end() {
    #[cfg(target_os = "linux")]
    {
        // Best effort: without it only stopped processes outlive their parent.
        let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGCONT);
    }
}

/// Ends when standard input ends where this process is `held`; never otherwise.
pub(crate) fn ended(held: bool) -> std::io::Result<impl Future<Output = ()>> {
    let (end, ended) = oneshot::channel::<()>();
    let kept = if held { hold(move || drop(end)).map(|()| None)? } else { Some(end) };
    Ok(async move {
        // The sender is dropped at the end of standard input, and without a lifeline kept here.
        let _ = ended.await;
        drop(kept);
    })
}

/// Ends when this process is to stop: at SIGINT, at SIGTERM, or where it is `held` and standard
/// input ends. Call it inside a runtime.
pub(crate) fn stopped(held: bool) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let ended = ended(held)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = ended => {}
        }
    })
}
