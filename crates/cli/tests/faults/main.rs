//! The `everpoint` command where things go wrong: refusals, damage, interruptions, lost connections, lost
//! log. Every test runs the program itself against servers and repositories of its own.

#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

mod support;

mod backup;
mod expire;
mod init;
mod instance;
mod listings;
mod push;
mod receive;
mod served;
mod summaries;
mod verify;
