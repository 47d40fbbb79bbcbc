//! Ends this process when standard input ends, so that children never outlive a killed parent.

use std::io::Read as _;

/// Watches standard input on a thread of its own: whatever the rest of the process does, its
/// parent's end is noticed.
pub(crate) fn hold(on_end: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let watch = move || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
        on_end();
    };
    std::thread::Builder::new().name("lifeline".to_owned()).spawn(watch)?;
    Ok(())
}
