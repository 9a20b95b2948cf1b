//! The `everpoint` command.

mod args;
mod commands;
mod exit;
mod history_args;
mod output;
mod progress;
mod remote;
mod repository;
mod time;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(arguments)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(code) => code.into(),
        Err(error) => {
            exit::print(&error);
            exit::code_of(&error).into()
        }
    }
}
