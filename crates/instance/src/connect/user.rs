//! The operating system's name for the user we run as.

use std::{env, fs};

use super::{error::ConnectError, spec::ConnectionSpec};

/// The role to connect as: the one named, else `PGUSER`, else the operating system's user.
pub(crate) fn role(spec: &ConnectionSpec) -> Result<String, ConnectError> {
    if let Some(user) = spec.user() {
        return Ok(user.to_owned());
    }
    env::var("PGUSER")
        .ok()
        .filter(|user| !user.is_empty())
        .or_else(system_user)
        .ok_or(ConnectError::NoUser)
}

fn system_user() -> Option<String> {
    let id = rustix::process::geteuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    })
}
