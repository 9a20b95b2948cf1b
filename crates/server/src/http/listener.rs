//! Connections: TLS, HTTP/1.1, and their limits.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use everpoint_api::{ApiError, Code};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{answer::Answer, limit::RateLimit, routes::Method};
use crate::service::{Service, Wanted, told};

/// How long a client may take for the handshake, for the headers of a request, and for its body.
const PATIENCE: Duration = Duration::from_secs(15);
/// The largest head of a request.
const HEAD_BYTES: usize = 32 << 10;
/// The most headers of a request.
const HEADERS: usize = 64;
/// How long connections may go on when the service ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// The service cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Binds the address that is configured.
///
/// # Errors
/// When it is taken, or not ours.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// Answers until told to end.
pub async fn serve(listener: TcpListener, service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let rate = Arc::new(RateLimit::new(1.0, 1.0));
    let mut settings = service.follow_settings();
    settings.mark_changed();
    let mut most = 1;
    let mut connections = JoinSet::new();
    let ending = stop.clone();
    loop {
        let room = connections.len() < most;
        let accepted = tokio::select! {
            accepted = listener.accept(), if room => accepted,
            Some(_) = connections.join_next() => continue,
            // The sender lives as long as the service.
            Ok(()) = settings.changed() => {
                let limits = settings.borrow_and_update().limits.clone();
                most = usize::from(limits.connections);
                rate.set(f64::from(limits.requests_per_second), f64::from(limits.burst));
                continue;
            }
            () = told(&mut stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, for example: others may end soon.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let connection = Connection {
            service: service.clone(),
            rate: rate.clone(),
            peer,
        };
        let acceptor = TlsAcceptor::from(service.tls());
        let ending = ending.clone();
        connections.spawn(connection.run(stream, acceptor, ending));
    }
    let rest = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(FAREWELL, rest).await;
}

#[derive(Clone)]
struct Connection {
    service: Arc<Service>,
    rate: Arc<RateLimit<IpAddr>>,
    peer: SocketAddr,
}

impl Connection {
    async fn run(self, stream: TcpStream, acceptor: TlsAcceptor, mut stop: watch::Receiver<bool>) {
        let _ = stream.set_nodelay(true);
        // Whoever does not read its answers is given up, too.
        let unread = u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, unread);
        let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await else {
            return;
        };
        let answering = service_fn(move |request| {
            let connection = self.clone();
            async move { Ok::<_, Infallible>(connection.answer(request).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS);
        let connection = http.serve_connection(TokioIo::new(stream), answering);
        let mut connection = std::pin::pin!(connection);
        // What a broken connection says is of no use to anybody.
        tokio::select! {
            _ = connection.as_mut() => {}
            () = told(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = if self.rate.take(self.peer.ip(), std::time::Instant::now()) {
            self.within_limits(request).await
        } else {
            let text = "too many requests from this address. Wait a second";
            ApiError::new(Code::TooManyRequests, text).into()
        };
        response(answer)
    }

    async fn within_limits(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let limit = usize::from(self.service.settings().limits.body_kib) << 10;
        let body = match timeout(PATIENCE, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => {
                let text = format!("the body is larger than {limit} bytes, or did not come whole");
                return ApiError::new(Code::RequestTooLarge, text).into();
            }
            Err(_) => {
                let text = "the body did not come in time";
                return ApiError::new(Code::InvalidRequestContent, text).into();
            }
        };
        let authorization = head.headers.get(header::AUTHORIZATION);
        let token = authorization
            .and_then(|value| value.to_str().ok())
            .and_then(|text| {
                let (scheme, token) = text.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
            });
        let identity_header = head.headers.get("x-identity-header");
        let wanted = Wanted {
            method: Method::parse(head.method.as_str()),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            token,
            identity_header: identity_header.and_then(|value| value.to_str().ok()),
            body: &body,
        };
        self.service.answer(&wanted).await
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut builder = Response::builder()
        .status(answer.status)
        .header("cache-control", "no-store")
        .header("x-content-type-options", "nosniff")
        .header("strict-transport-security", "max-age=31536000")
        .header("x-ms-request-id", uuid::Uuid::new_v4().to_string());
    for (name, value) in answer.headers {
        builder = builder.header(name, value);
    }
    builder
        .body(Full::new(Bytes::from(answer.body)))
        .unwrap_or_else(|error| {
            tracing::error!(%error, "an answer cannot be sent");
            let mut failed = Response::new(Full::default());
            *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            failed
        })
}
