//! One test body, a test for each supported version.

use std::future::Future;

use anyhow::{Context, Result};

/// Runs a test's body on a runtime of its own with two workers.
///
/// # Errors
/// Those of the body.
pub fn run(body: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("could not start a runtime")?
        .block_on(body)
}

/// Makes one asynchronous function a module of four tests, `on_15` to `on_18`, each given its [`Server`].
///
/// [`Server`]: crate::Server
#[macro_export]
macro_rules! on_every_version {
    ($($(#[$attribute:meta])*
        async fn $name:ident($server:ident: Server) -> $result:ty $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $(#[$attribute])*
            async fn body($server: $crate::Server) -> $result $body

            #[test]
            fn on_15() -> $result {
                $crate::run(body($crate::Server::find(15)?))
            }

            #[test]
            fn on_16() -> $result {
                $crate::run(body($crate::Server::find(16)?))
            }

            #[test]
            fn on_17() -> $result {
                $crate::run(body($crate::Server::find(17)?))
            }

            #[test]
            fn on_18() -> $result {
                $crate::run(body($crate::Server::find(18)?))
            }
        }
    )+};
}
