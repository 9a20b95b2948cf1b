//! A connection for PostgreSQL's own client programs, which speak through libpq.

use zeroize::Zeroizing;

use super::{
    endpoint::Endpoint, error::ConnectError, passfile::password_for, spec::ConnectionSpec,
    user::role,
};

/// How `pg_dump` and its like reach a database: connection text for their arguments, and a password for
/// their environment, where other users do not see it.
#[derive(Clone)]
pub struct LibpqConnection {
    text: String,
    password: Option<Zeroizing<String>>,
}

impl ConnectionSpec {
    /// How a program reaches `database` at `endpoint` as the same role and with the same trust in the network.
    ///
    /// # Errors
    /// [`ConnectError::NoUser`].
    pub fn for_libpq(
        &self,
        endpoint: &Endpoint,
        database: &str,
    ) -> Result<LibpqConnection, ConnectError> {
        let user = role(self)?;
        Ok(LibpqConnection {
            text: self.libpq_text(endpoint, database, &user),
            password: password_for(self, endpoint, database, &user),
        })
    }
}

impl LibpqConnection {
    /// The connection as `key=value` text, without the password.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Gives a program this connection: the text as `--dbname`, the password by its environment.
    pub fn apply(&self, command: &mut tokio::process::Command) {
        command
            .arg(format!("--dbname={}", self.text))
            .arg("--no-password");
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password.as_str());
        }
    }
}

impl std::fmt::Debug for LibpqConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LibpqConnection({})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_led_to_one_endpoint_and_see_no_password_in_their_arguments() {
        let spec: ConnectionSpec =
            "host=a,b port=1,2 user=u password=secret sslmode=require target_session_attrs=primary"
                .parse()
                .unwrap();
        let endpoint = spec.endpoints().last().unwrap();
        let libpq = spec.for_libpq(endpoint, "it's").unwrap();
        assert!(!libpq.text().contains("secret"), "{}", libpq.text());
        assert!(!libpq.text().contains("target_session_attrs"));
        let read: ConnectionSpec = libpq.text().parse().unwrap();
        assert_eq!(read.endpoints(), std::slice::from_ref(endpoint));
        assert_eq!((read.database(), read.user()), ("it's", Some("u")));
        assert_eq!(read.tls(), spec.tls());
        assert_eq!(libpq.password.unwrap().as_str(), "secret");
    }
}
