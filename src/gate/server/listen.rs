//! Connections: accepted, with TLS where it is configured, and bounded in number and in time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::Server;
use crate::gate::config::ServerTls;
use crate::gate::tls;

/// The most connections at once; others wait to be accepted.
const CONNECTIONS: usize = 1_024;
/// How long a handshake, the headers of a request, or a pause between two requests may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a certificate is used before its files are read again: those of workloads live for an hour or less.
const FRESH: Duration = Duration::from_secs(300);
/// How long nothing is accepted after accepting failed, as it does where the process has too many files open.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers for ever on a port that is open already.
///
/// # Errors
///
/// When the certificate cannot be read.
pub(crate) async fn serve(listener: TcpListener, server: Arc<Server>, tls: Option<ServerTls>) -> anyhow::Result<()> {
    let mut certificate = tls.map(Certificate::read).transpose()?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the gate cannot accept connections: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (server, acceptor) = (Arc::clone(&server), certificate.as_mut().map(Certificate::acceptor));
        tokio::spawn(async move {
            converse(stream, &server, acceptor).await;
            drop(place);
        });
    }
}

/// The gate's certificate, and when it was read.
struct Certificate {
    tls: ServerTls,
    config: Arc<ServerConfig>,
    read: Instant,
}

impl Certificate {
    fn read(tls: ServerTls) -> anyhow::Result<Self> {
        Ok(Self { config: tls::server(&tls)?, tls, read: Instant::now() })
    }

    /// What the next connection is accepted with. A new certificate that cannot be read leaves the old one in use.
    fn acceptor(&mut self) -> TlsAcceptor {
        if self.read.elapsed() > FRESH {
            self.read = Instant::now();
            match tls::server(&self.tls) {
                Ok(config) => self.config = config,
                Err(error) => tracing::error!("`gate.tls`, the certificate that was read before stays: {error:#}"),
            }
        }
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

async fn converse(stream: TcpStream, server: &Server, acceptor: Option<TlsAcceptor>) {
    // What is sent is whole: waiting for more to send with it only costs time. Where it cannot be set, it is slower.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else { return answer(stream, server, &[]).await };
    match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let names = certificates.first().map(tls::names).unwrap_or_default();
            answer(stream, server, &names).await;
        }
        Ok(Err(error)) => tracing::debug!("a handshake with the gate failed: {error}"),
        Err(_) => tracing::debug!("a handshake with the gate took too long"),
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, server: &Server, names: &[String]) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(server.handle(request, names).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!("a connection to the gate ended: {error}");
    }
}
