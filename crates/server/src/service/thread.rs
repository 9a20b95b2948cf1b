//! Threads for long work: what waits for files and servers there keeps nobody's request waiting. And tasks that go on as
//! long as the service does.
//!
//! A panic in either would leave a service that looks alive and takes no backups. It ends the process instead: whoever
//! started it starts it again, and it goes on where it was.

use std::{
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::{JoinHandle, spawn},
};

/// `EX_SOFTWARE` of `sysexits.h`.
const EXIT_CODE: i32 = 70;

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
    let thread = std::thread::Builder::new().name(name.clone());
    thread.spawn(move || {
        // Nothing of what it touched is looked at afterwards.
        if catch_unwind(AssertUnwindSafe(|| runtime.block_on(make()))).is_err() {
            end_process(&name);
        }
        // Nobody may be waiting.
        let _ = ended.send(());
    })?;
    Ok(wait)
}

/// Runs a task of the service's own.
pub(super) fn keep(
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    spawn(async move {
        let ended = spawn(task).await;
        if ended.is_err_and(|error| error.is_panic()) {
            end_process(name);
        }
    })
}

fn end_process(what: &str) -> ! {
    tracing::error!(
        "`{what}` panicked, which is a fault of everpoint. The service ends; started again, it goes on"
    );
    std::process::exit(EXIT_CODE)
}
