//! Tests of what does not differ from version to version: on the oldest and the newest.

/// Makes one asynchronous function a module of two tests, each given its [`Server`](everpoint_testkit::Server).
macro_rules! on_oldest_and_newest {
    ($($(#[$attribute:meta])*
        async fn $name:ident($server:ident: Server) -> $result:ty $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $(#[$attribute])*
            async fn body($server: everpoint_testkit::Server) -> $result $body

            #[test]
            fn on_15() -> $result {
                everpoint_testkit::run(body(everpoint_testkit::Server::find(15)?))
            }

            #[test]
            fn on_18() -> $result {
                everpoint_testkit::run(body(everpoint_testkit::Server::find(18)?))
            }
        }
    )+};
}

pub(crate) use on_oldest_and_newest;
