//! The standard health service: whether the mesh takes requests, now and as it changes.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use mesh_actors::Readiness;
use mesh_protocol::{
    grpc::SERVICE,
    serving::{MODELS, PREDICTIONS},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

use crate::service::ended;

/// Answers for the whole server, whose name is empty, and for the services of inference.
#[derive(Debug, Clone)]
pub(crate) struct HealthOf {
    pub(crate) readiness: Readiness,
    /// True once the door is ending, which ends whoever follows.
    pub(crate) ending: watch::Receiver<bool>,
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn serving(ready: bool) -> HealthCheckResponse {
    response(if ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    })
}

fn is_known(request: &Request<HealthCheckRequest>) -> bool {
    let name = &request.get_ref().service;
    name.is_empty() || [SERVICE, PREDICTIONS, MODELS].contains(&name.as_str())
}

#[tonic::async_trait]
impl Health for HealthOf {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request) {
            return Err(Status::not_found("there is no such service"));
        }
        Ok(Response::new(serving(self.readiness.is_ready())))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let ended = ended(self.ending.clone());
        let told: Self::WatchStream = if is_known(&request) {
            let told = stream::unfold(self.readiness.follow(), |mut follow| async move {
                let ready = follow.next().await?;
                Some((Ok(serving(ready)), follow))
            });
            Box::pin(told.take_until(ended))
        } else {
            // By the protocol it may become known, so the stream goes on.
            let unknown = stream::iter([Ok(response(ServingStatus::ServiceUnknown))]);
            Box::pin(unknown.chain(stream::pending()).take_until(ended))
        };
        Ok(Response::new(told))
    }
}
