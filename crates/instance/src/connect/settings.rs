//! Values of single connection parameters.

use std::time::Duration;

use super::{parameters::Parameters, spec::SpecError};

/// How long a TCP connection idles before it is probed, unless `keepalives_idle` says otherwise.
pub const DEFAULT_KEEPALIVES_IDLE: Duration = Duration::from_secs(60);
/// Seconds between probes, unless `keepalives_interval` says otherwise.
pub const DEFAULT_KEEPALIVES_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered probes before a connection is given up, unless `keepalives_count` says otherwise.
pub const DEFAULT_KEEPALIVES_COUNT: u32 = 6;

/// TCP keepalive settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes before the connection is given up.
    pub count: u32,
}

/// Which of several servers will do (`target_session_attrs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedServer {
    /// Any.
    Any,
    /// One that takes writes by default.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is in recovery.
    Standby,
    /// One in recovery when there is one, else any.
    PreferStandby,
}

/// Whether the password exchange must be bound to the TLS connection (`channel_binding`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBindingUse {
    /// Never.
    Disable,
    /// When the server can.
    Prefer,
    /// A server that cannot is refused.
    Require,
}

/// Looks a value up in a table of those allowed.
pub(super) fn choice<T: Copy>(
    parameters: &Parameters,
    name: &'static str,
    expected: &'static str,
    table: &[(&str, T)],
) -> Result<Option<T>, SpecError> {
    let Some(value) = parameters.get(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    table
        .iter()
        .find(|(text, _)| *text == value)
        .map(|(_, meaning)| Some(*meaning))
        .ok_or_else(|| SpecError::Value {
            name,
            value: value.to_owned(),
            expected,
        })
}

/// A number; negative ones are 0, which libpq takes for "the system's own default".
pub(super) fn number(
    parameters: &Parameters,
    name: &'static str,
) -> Result<Option<u32>, SpecError> {
    let Some(value) = parameters.get(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    match value.trim().parse::<i32>() {
        Ok(number) => Ok(Some(u32::try_from(number).unwrap_or(0))),
        Err(_) => Err(SpecError::Value {
            name,
            value: value.to_owned(),
            expected: "a whole number",
        }),
    }
}

pub(super) fn seconds(
    parameters: &Parameters,
    name: &'static str,
) -> Result<Option<Duration>, SpecError> {
    Ok(number(parameters, name)?.map(|number| Duration::from_secs(u64::from(number))))
}

/// `None` when turned off.
pub(super) fn keepalive(parameters: &Parameters) -> Result<Option<Keepalive>, SpecError> {
    if number(parameters, "keepalives")? == Some(0) {
        return Ok(None);
    }
    let duration = |name, default| {
        Ok::<_, SpecError>(
            seconds(parameters, name)?
                .filter(|duration| !duration.is_zero())
                .unwrap_or(default),
        )
    };
    Ok(Some(Keepalive {
        idle: duration("keepalives_idle", DEFAULT_KEEPALIVES_IDLE)?,
        interval: duration("keepalives_interval", DEFAULT_KEEPALIVES_INTERVAL)?,
        count: number(parameters, "keepalives_count")?
            .filter(|&count| count > 0)
            .unwrap_or(DEFAULT_KEEPALIVES_COUNT),
    }))
}
