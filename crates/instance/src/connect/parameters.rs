//! A connection string as its parameters: `postgresql://` URLs and `key=value` text, as libpq reads them.
//!
//! Source: "Connection Strings" of PostgreSQL's libpq documentation, `src/interfaces/libpq/fe-connect.c`.

use std::fmt;

/// The parameters of a connection string, in the order they were written. The last of a name counts.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Parameters(Vec<(String, String)>);

/// The text is no connection string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A name without `=` and a value.
    #[error(
        "the connection string has no `=` after `{name}`. Write `key=value`, or a URL that begins with postgresql://"
    )]
    NoValue {
        /// The name.
        name: String,
    },
    /// A quote that is never closed.
    #[error("the connection string's value of `{name}` begins with a quote that is never closed")]
    OpenQuote {
        /// The parameter.
        name: String,
    },
    /// A `%` that is not followed by two hexadecimal digits, or that makes no UTF-8.
    #[error("the connection URL holds a malformed percent-encoding in its {part}")]
    PercentEncoding {
        /// Which part of the URL.
        part: &'static str,
    },
    /// An IPv6 address without its closing bracket.
    #[error("the connection URL holds an address with `[` and no `]`")]
    OpenBracket,
}

impl Parameters {
    pub(super) fn parse(text: &str) -> Result<Self, ParameterError> {
        let text = text.trim();
        let url = text
            .strip_prefix("postgresql://")
            .or_else(|| text.strip_prefix("postgres://"));
        match url {
            Some(rest) => from_url(rest),
            None => from_pairs(text),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(key, _)| key != name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }

    /// `key=value` text; values are quoted where they need it.
    pub(super) fn write(
        &self,
        f: &mut impl fmt::Write,
        shown: impl Fn(&str) -> bool,
    ) -> fmt::Result {
        let mut separator = "";
        for (name, value) in self.0.iter().filter(|(name, _)| shown(name)) {
            write!(f, "{separator}{name}=")?;
            separator = " ";
            write_value(f, value)?;
        }
        Ok(())
    }
}

fn write_value(f: &mut impl fmt::Write, value: &str) -> fmt::Result {
    let plain = !value.is_empty()
        && value
            .chars()
            .all(|c| !c.is_whitespace() && !matches!(c, '\'' | '\\'));
    if plain {
        return f.write_str(value);
    }
    f.write_char('\'')?;
    for character in value.chars() {
        if matches!(character, '\'' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(character)?;
    }
    f.write_char('\'')
}

fn from_pairs(text: &str) -> Result<Parameters, ParameterError> {
    let mut parameters = Parameters::default();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| c == '=' || c.is_whitespace())
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let after = after.trim_start();
        let Some(after) = after.strip_prefix('=').filter(|_| !name.is_empty()) else {
            return Err(ParameterError::NoValue {
                name: name.to_owned(),
            });
        };
        let (value, after) = pair_value(name, after.trim_start())?;
        parameters.set(name, &value);
        rest = after.trim_start();
    }
    Ok(parameters)
}

/// Takes a value, quoted or not, off the front of `text`.
fn pair_value<'a>(name: &str, text: &'a str) -> Result<(String, &'a str), ParameterError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices();
    if quoted {
        characters.next();
    }
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            c if !quoted && c.is_whitespace() => {
                return Ok((value, text.get(at..).unwrap_or_default()));
            }
            other => value.push(other),
        }
    }
    if quoted {
        return Err(ParameterError::OpenQuote {
            name: name.to_owned(),
        });
    }
    Ok((value, ""))
}

fn from_url(text: &str) -> Result<Parameters, ParameterError> {
    let mut parameters = Parameters::default();
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    // A user name may hold an encoded `/` only, so the last `@` before the path ends the credentials.
    let (authority, database) = text.split_once('/').unwrap_or((text, ""));
    let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match credentials.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (credentials, None),
    };
    set_decoded(&mut parameters, "user", user)?;
    set_decoded(&mut parameters, "password", password.unwrap_or_default())?;
    set_hosts(&mut parameters, hosts)?;
    set_decoded(&mut parameters, "dbname", database)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| ParameterError::NoValue {
                name: pair.to_owned(),
            })?;
        let name = decode(name, "parameters")?;
        // JDBC's spelling, which libpq accepts too.
        match (name.as_str(), value) {
            ("ssl", "true") => parameters.set("sslmode", "require"),
            _ => parameters.set(&name, &decode(value, "parameters")?),
        }
    }
    Ok(parameters)
}

fn set_decoded(
    parameters: &mut Parameters,
    name: &'static str,
    value: &str,
) -> Result<(), ParameterError> {
    if !value.is_empty() {
        parameters.set(name, &decode(value, name)?);
    }
    Ok(())
}

fn set_hosts(parameters: &mut Parameters, text: &str) -> Result<(), ParameterError> {
    if text.is_empty() {
        return Ok(());
    }
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for item in text.split(',') {
        let (host, port) = match item.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or(ParameterError::OpenBracket)?;
                (host, after.strip_prefix(':').unwrap_or_default())
            }
            None => item.split_once(':').unwrap_or((item, "")),
        };
        hosts.push(decode(host, "host")?);
        ports.push(decode(port, "port")?);
    }
    if hosts.iter().any(|host| !host.is_empty()) {
        parameters.set("host", &hosts.join(","));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        parameters.set("port", &ports.join(","));
    }
    Ok(())
}

fn decode(text: &str, part: &'static str) -> Result<String, ParameterError> {
    let error = || ParameterError::PercentEncoding { part };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>().ok_or_else(error)?;
        let digits = std::str::from_utf8(digits).map_err(|_| error())?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(error());
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| error())?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(parameters: &Parameters) -> String {
        let mut text = String::new();
        parameters.write(&mut text, |_| true).unwrap();
        text
    }

    #[test]
    fn urls_and_pairs_mean_the_same() {
        let url = "postgresql://al%40ice:p%2Fw@[::1]:5433,db2/my%20db?sslmode=verify-full&application_name=x";
        let pairs = "user = al@ice password='p/w' host=::1,db2 port=5433, dbname=my\\ db \
                     sslmode=verify-full application_name=x";
        let from_url = Parameters::parse(url).unwrap();
        let from_pairs = Parameters::parse(pairs).unwrap();
        assert_eq!(text(&from_url), text(&from_pairs));
        assert_eq!(from_url.get("dbname"), Some("my db"));
        assert_eq!(from_url.get("port"), Some("5433,"));
    }

    #[test]
    fn written_text_is_read_back_as_the_same_parameters() {
        let mut parameters = Parameters::default();
        for (name, value) in [
            ("password", "it's a \\ back"),
            ("user", ""),
            ("host", "/var/run/postgresql"),
            ("options", "-c a=b\t"),
        ] {
            parameters.set(name, value);
        }
        let text = text(&parameters);
        assert!(Parameters::parse(&text).unwrap() == parameters, "{text}");
    }

    #[test]
    fn socket_directory_in_a_url_is_decoded() {
        let parameters = Parameters::parse("postgres://%2Frun%2Fpg/app").unwrap();
        assert_eq!(parameters.get("host"), Some("/run/pg"));
        let parameters = Parameters::parse("postgres:///app?host=/run/pg").unwrap();
        assert_eq!(parameters.get("host"), Some("/run/pg"));
    }

    #[test]
    fn malformed_text_is_refused_with_its_place() {
        assert!(matches!(
            Parameters::parse("host"),
            Err(ParameterError::NoValue { name }) if name == "host"
        ));
        assert!(Parameters::parse("host='x").is_err());
        assert!(Parameters::parse("postgres://%zz/").is_err());
        assert!(Parameters::parse("postgres://u@[::1/").is_err());
        assert!(Parameters::parse("=x").is_err());
    }
}
