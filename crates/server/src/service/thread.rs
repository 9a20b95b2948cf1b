//! Threads for long work: what waits for files and servers there keeps nobody's request waiting.

use std::{future::Future, io};

use tokio::{runtime::Handle, sync::oneshot};

/// Runs a future on a thread of its own, in this runtime. What is returned ends when the thread does.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn run<F: Future<Output = ()>>(
    name: String,
    make: impl FnOnce() -> F + Send + 'static,
) -> io::Result<oneshot::Receiver<()>> {
    let (ended, wait) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new().name(name).spawn(move || {
        runtime.block_on(make());
        // Nobody may be waiting.
        let _ = ended.send(());
    })?;
    Ok(wait)
}
