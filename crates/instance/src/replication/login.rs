//! Opening a replication connection: startup and authentication.

use std::{collections::HashMap, io};

use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
    },
    message::{
        backend::{AuthenticationSaslBody, Message},
        frontend,
    },
};
use zeroize::Zeroizing;

use super::{
    framed::{Framed, Incoming},
    message::server_message,
};
use crate::connect::{
    ChannelBindingUse, ConnectError, ConnectionSpec, Endpoint, ServerMessage, Transport,
    WantedServer, check_kind, password_for, role,
};

/// What `pg_hba.conf` and password files call the database of a replication connection.
const REPLICATION: &str = "replication";

/// A connection that takes commands.
pub(super) struct Session {
    pub(super) framed: Framed,
    pub(super) user: String,
    /// What the server reported of itself.
    pub(super) parameters: HashMap<String, String>,
}

struct Login<'a> {
    spec: &'a ConnectionSpec,
    endpoint: &'a Endpoint,
    user: String,
    password: Option<Zeroizing<String>>,
    framed: Framed,
}

pub(super) async fn log_in(
    spec: &ConnectionSpec,
    endpoint: &Endpoint,
    wanted: WantedServer,
) -> Result<Session, ConnectError> {
    let user = role(spec)?;
    let password = password_for(spec, endpoint, REPLICATION, &user);
    let transport = Transport::open(spec, endpoint).await?;
    let login = Login {
        spec,
        endpoint,
        user,
        password,
        framed: Framed::new(transport),
    };
    match spec.connect_timeout() {
        None => login.run(wanted).await,
        Some(limit) => tokio::time::timeout(limit, login.run(wanted))
            .await
            .unwrap_or_else(|_| {
                Err(ConnectError::TimedOut {
                    endpoint: endpoint.to_string(),
                    limit,
                })
            }),
    }
}

impl Login<'_> {
    async fn run(mut self, wanted: WantedServer) -> Result<Session, ConnectError> {
        let mut parameters = vec![
            ("user", self.user.as_str()),
            ("replication", "true"),
            ("client_encoding", "UTF8"),
            ("application_name", self.spec.application_name()),
        ];
        if let Some(options) = self.spec.options() {
            parameters.push(("options", options));
        }
        frontend::startup_message(parameters, self.framed.outgoing())
            .map_err(|error| broken(self.endpoint, error))?;
        self.authenticate().await?;
        let parameters = self.ready().await?;
        check_kind(self.endpoint, wanted, |name| {
            parameters.get(name).map(String::as_str)
        })?;
        Ok(Session {
            framed: self.framed,
            user: self.user,
            parameters,
        })
    }

    async fn authenticate(&mut self) -> Result<(), ConnectError> {
        match self.receive().await? {
            Message::AuthenticationOk => return self.need_binding(),
            Message::AuthenticationCleartextPassword => {
                self.need_binding()?;
                let password = self.password()?;
                self.send(|buffer| frontend::password_message(password.as_bytes(), buffer))?;
            }
            Message::AuthenticationMd5Password(body) => {
                self.need_binding()?;
                let password = self.password()?;
                let hash = Zeroizing::new(md5_hash(
                    self.user.as_bytes(),
                    password.as_bytes(),
                    body.salt(),
                ));
                self.send(|buffer| frontend::password_message(hash.as_bytes(), buffer))?;
            }
            Message::AuthenticationSasl(body) => self.scram(&body).await?,
            Message::AuthenticationGss | Message::AuthenticationGssContinue(_) => {
                return Err(self.unsupported("GSSAPI"));
            }
            Message::AuthenticationSspi => return Err(self.unsupported("SSPI")),
            Message::AuthenticationKerberosV5 => return Err(self.unsupported("Kerberos 5")),
            Message::AuthenticationScmCredential => {
                return Err(self.unsupported("SCM credentials"));
            }
            _ => return Err(self.unexpected()),
        }
        match self.receive().await? {
            Message::AuthenticationOk => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    /// SCRAM-SHA-256, bound to the TLS connection where both sides can.
    async fn scram(&mut self, offer: &AuthenticationSaslBody) -> Result<(), ConnectError> {
        let (mut plain, mut plus) = (false, false);
        let mut mechanisms = offer.mechanisms();
        while let Some(mechanism) =
            next_mechanism(&mut mechanisms).map_err(|error| broken(self.endpoint, error))?
        {
            plain |= mechanism == SCRAM_SHA_256;
            plus |= mechanism == SCRAM_SHA_256_PLUS;
        }
        let digest = match self.spec.channel_binding() {
            ChannelBindingUse::Disable => None,
            _ => self.framed.transport().certificate_digest(),
        };
        let (mechanism, binding) = match (plus, digest) {
            (true, Some(digest)) => (
                SCRAM_SHA_256_PLUS,
                ChannelBinding::tls_server_end_point(digest),
            ),
            _ if !plain => return Err(self.unsupported("an unknown SASL mechanism")),
            // "We could, and the server did not offer it": this is how a stripped offer is found out.
            (false, Some(_)) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            (_, None) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        if mechanism != SCRAM_SHA_256_PLUS {
            self.need_binding()?;
        }
        let password = self.password()?;
        let mut scram = ScramSha256::new(password.as_bytes(), binding);
        self.send(|buffer| frontend::sasl_initial_response(mechanism, scram.message(), buffer))?;
        let Message::AuthenticationSaslContinue(body) = self.receive().await? else {
            return Err(self.unexpected());
        };
        scram
            .update(body.data())
            .map_err(|source| self.handshake(source))?;
        self.send(|buffer| frontend::sasl_response(scram.message(), buffer))?;
        let Message::AuthenticationSaslFinal(body) = self.receive().await? else {
            return Err(self.unexpected());
        };
        scram
            .finish(body.data())
            .map_err(|source| self.handshake(source))
    }

    /// Refuses whatever is not bound to TLS where that was asked for.
    fn need_binding(&self) -> Result<(), ConnectError> {
        if self.spec.channel_binding() == ChannelBindingUse::Require {
            return Err(self.handshake(io::Error::other(
                "channel_binding=require, and the server offers no password exchange bound to TLS",
            )));
        }
        Ok(())
    }

    async fn ready(&mut self) -> Result<HashMap<String, String>, ConnectError> {
        let mut parameters = HashMap::new();
        loop {
            match self.receive().await? {
                Message::ParameterStatus(body) => {
                    let (name, value) = body
                        .name()
                        .and_then(|name| Ok((name.to_owned(), body.value()?.to_owned())))
                        .map_err(|error| broken(self.endpoint, error))?;
                    parameters.insert(name, value);
                }
                Message::BackendKeyData(_) => {}
                Message::ReadyForQuery(_) => return Ok(parameters),
                _ => return Err(self.unexpected()),
            }
        }
    }

    fn send(
        &mut self,
        write: impl FnOnce(&mut bytes::BytesMut) -> io::Result<()>,
    ) -> Result<(), ConnectError> {
        write(self.framed.outgoing()).map_err(|error| broken(self.endpoint, error))
    }

    /// The next message that is neither a notice nor an error.
    async fn receive(&mut self) -> Result<Message, ConnectError> {
        let broken = |error| broken(self.endpoint, error);
        self.framed.flush().await.map_err(broken)?;
        loop {
            let incoming = self.framed.next().await.map_err(broken)?;
            match incoming {
                None => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
                Some(Incoming::Message(Message::NoticeResponse(_))) => {}
                Some(Incoming::Message(Message::ErrorResponse(body))) => {
                    let message = server_message(body.fields()).map_err(broken)?;
                    return Err(self.refused(message));
                }
                Some(Incoming::Message(message)) => return Ok(message),
                Some(Incoming::CopyBoth) => return Err(self.unexpected()),
            }
        }
    }

    fn refused(&self, message: ServerMessage) -> ConnectError {
        ConnectError::from_server(self.endpoint.to_string(), &self.user, REPLICATION, message)
    }

    fn password(&self) -> Result<Zeroizing<String>, ConnectError> {
        self.password
            .clone()
            .ok_or_else(|| ConnectError::NoPassword {
                endpoint: self.endpoint.to_string(),
                user: self.user.clone(),
            })
    }

    fn unsupported(&self, method: &'static str) -> ConnectError {
        ConnectError::UnsupportedMethod {
            endpoint: self.endpoint.to_string(),
            method,
        }
    }

    fn handshake(&self, source: io::Error) -> ConnectError {
        ConnectError::Handshake {
            endpoint: self.endpoint.to_string(),
            source,
        }
    }

    fn unexpected(&self) -> ConnectError {
        broken(
            self.endpoint,
            io::Error::new(io::ErrorKind::InvalidData, "an unexpected message"),
        )
    }
}

fn next_mechanism<'a>(
    mechanisms: &mut postgres_protocol::message::backend::SaslMechanisms<'a>,
) -> io::Result<Option<&'a str>> {
    fallible_iterator::FallibleIterator::next(mechanisms)
}

fn broken(endpoint: &Endpoint, source: io::Error) -> ConnectError {
    ConnectError::Broken {
        endpoint: endpoint.to_string(),
        source: Box::new(source),
    }
}
