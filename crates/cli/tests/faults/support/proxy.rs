//! A way to a server that can be cut.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::Result;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// Passes connections on until they are cut.
pub struct Proxy {
    address: SocketAddr,
    open: Arc<Mutex<JoinSet<()>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// To a port of this machine.
    pub async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let open = Arc::new(Mutex::new(JoinSet::new()));
        let connections = Arc::clone(&open);
        let accepting = tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let pass = async move {
                    if let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await {
                        // Whatever ends it, both sides see their connection end.
                        let _ = copy_bidirectional(&mut from, &mut to).await;
                    }
                };
                connections.lock().unwrap().spawn(pass);
            }
        });
        Ok(Self {
            address,
            open,
            accepting,
        })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Cuts every connection there is.
    pub fn cut(&self) {
        self.open.lock().unwrap().abort_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}
