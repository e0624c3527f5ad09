//! The empty handler: reads the body, answers as many bytes as it was told to. On the same library as the mesh's own doors.

use std::{net::SocketAddr, num::NonZeroUsize};

use actix_web::{
    App, HttpResponse, HttpServer,
    dev::Server,
    web::{self, Bytes, PayloadConfig},
};
use anyhow::Context;

/// The longest body that is read.
pub const MAX_FLOOR_BODY_BYTES: usize = 64 << 20;

/// A server that does nothing. Must be started within an actix system.
pub struct Floor {
    /// Where it listens.
    pub address: SocketAddr,
    /// Runs until stopped.
    pub server: Server,
}

impl Floor {
    /// Binds and starts.
    pub fn start(listen: SocketAddr, workers: NonZeroUsize, answer_bytes: usize) -> anyhow::Result<Self> {
        let answer = Bytes::from(vec![b'x'; answer_bytes]);
        let server = HttpServer::new(move || {
            let answer = answer.clone();
            let handler = move |body: Bytes| {
                // The length goes into the answer, so that the body cannot be left unread.
                let response = HttpResponse::Ok()
                    .content_type("application/octet-stream")
                    .insert_header(("x-read-bytes", body.len()))
                    .body(answer.clone());
                async move { response }
            };
            App::new()
                .app_data(PayloadConfig::new(MAX_FLOOR_BODY_BYTES))
                .default_service(web::to(handler))
        })
        .workers(workers.get())
        .disable_signals()
        .bind(listen)
        .with_context(|| format!("cannot listen on {listen}"))?;
        let address = server.addrs().first().copied().context("bound to no address")?;
        Ok(Self {
            address,
            server: server.run(),
        })
    }
}
