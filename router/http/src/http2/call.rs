//! One call of a connection: the handler's future and the sending of its answer. A caller that takes the call back drops both.

use std::{
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Service, ServiceResponse},
    http::{
        StatusCode,
        header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, TRANSFER_ENCODING, UPGRADE},
    },
};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};

use super::{
    Far, Thread,
    request::{self, Unreadable},
};
use crate::reply;

/// The most of an answer that is handed to the connection at once, and so kept beside the answer itself.
const PIECE_BYTES: usize = 256 * 1024;
/// Headers that are of an HTTP/1.1 connection.
const OF_CONNECTIONS: [HeaderName; 3] = [CONNECTION, TRANSFER_ENCODING, UPGRADE];

/// Why an answer was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    #[error("the caller took it back")]
    TakenBack,
    #[error("the caller does not read it")]
    Stalled,
    #[error("its body could not be made: {0}")]
    Body(Box<dyn std::error::Error>),
    #[error("it has a status or header that cannot be sent: {0}")]
    Head(#[from] http::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

/// A caller's side of a call.
pub(super) struct Caller {
    pub(super) request: http::Request<RecvStream>,
    pub(super) respond: SendResponse<Bytes>,
    pub(super) far: Far,
}

/// Answers a call.
pub(super) async fn answer<S>(thread: Rc<Thread<S>>, caller: Caller) -> Result<(), Unsent>
where
    S: Service<actix_http::Request, Response = ServiceResponse<BoxBody>, Error = actix_web::Error>,
{
    let Caller {
        request,
        mut respond,
        far,
    } = caller;
    let is_head = request.method() == http::Method::HEAD;
    let response = match request::read(request, far) {
        Ok(request) => {
            // Looked for first, so that what was taken back before it was begun is never begun.
            let mut call = pin!(async { thread.service.call(request).await });
            let called = poll_fn(|context| {
                if respond.poll_reset(context).is_ready() {
                    return Poll::Ready(None);
                }
                call.as_mut().poll(context).map(Some)
            });
            match called.await.ok_or(Unsent::TakenBack)? {
                Ok(answered) => answered.into_parts().1,
                Err(error) => error.error_response(),
            }
        }
        Err(unreadable) => refusal(unreadable),
    };
    let (response, body) = response.into_parts();
    let size = body.size();
    let head = head(&response, size, &thread.date())?;
    if is_head || size.is_eof() {
        respond.send_response(head, true)?;
    } else {
        let stream = respond.send_response(head, false)?;
        send(stream, body, thread.limits.stall).await?;
    }
    Ok(())
}

fn refusal(unreadable: Unreadable) -> HttpResponse {
    reply::refusal(unreadable.status(), &unreadable.to_string())
}

/// The head of an answer, as HTTP/1.1 has it but for what is of a connection.
fn head(response: &HttpResponse<()>, size: BodySize, date: &http::HeaderValue) -> http::Result<http::Response<()>> {
    let mut head = http::Response::builder().status(response.status().as_u16());
    for (name, value) in response.headers() {
        if !OF_CONNECTIONS.contains(name) {
            head = head.header(name.as_str(), value.as_bytes());
        }
    }
    // RFC 9110, section 8.6.
    let status = response.status();
    let has_none = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let has_length = has_none || response.headers().contains_key(CONTENT_LENGTH);
    if let (BodySize::Sized(bytes), false) = (size, has_length) {
        head = head.header(http::header::CONTENT_LENGTH, bytes);
    }
    if !response.headers().contains_key(DATE) {
        head = head.header(http::header::DATE, date);
    }
    head.body(())
}

/// Sends a body piece by piece, as the caller takes it.
async fn send(mut stream: SendStream<Bytes>, body: BoxBody, stall: Duration) -> Result<(), Unsent> {
    let mut left = match body.size() {
        BodySize::Sized(bytes) => Some(bytes),
        BodySize::None | BodySize::Stream => None,
    };
    let mut body = pin!(body);
    loop {
        let next = poll_fn(|context| {
            if stream.poll_reset(context).is_ready() {
                return Poll::Ready(Err(Unsent::TakenBack));
            }
            body.as_mut().poll_next(context).map(Ok)
        });
        let mut piece = match next.await? {
            None => return Ok(stream.send_data(Bytes::new(), true)?),
            Some(Ok(piece)) => piece,
            Some(Err(error)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Err(Unsent::Body(error));
            }
        };
        left = left.map(|left| left.saturating_sub(piece.len() as u64));
        while !piece.is_empty() {
            let room = room(&mut stream, piece.len().min(PIECE_BYTES), stall).await?;
            let part = piece.split_to(room.min(piece.len()));
            let is_last = piece.is_empty() && left == Some(0);
            stream.send_data(part, is_last)?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// How much the caller takes of what is wanted; an error where it takes nothing for long.
async fn room(stream: &mut SendStream<Bytes>, wanted: usize, stall: Duration) -> Result<usize, Unsent> {
    stream.reserve_capacity(wanted);
    let free = |context: &mut Context<'_>| loop {
        match std::task::ready!(stream.poll_capacity(context)) {
            None => return Poll::Ready(Err(Unsent::TakenBack)),
            Some(Err(error)) => return Poll::Ready(Err(error.into())),
            Some(Ok(0)) => {}
            Some(Ok(room)) => return Poll::Ready(Ok(room)),
        }
    };
    let mut free = pin!(poll_fn(free));
    // Most answers find room at once, and need no timer.
    if let Poll::Ready(room) = futures::poll!(&mut free) {
        return room;
    }
    match tokio::time::timeout(stall, free).await {
        Ok(room) => room,
        Err(_) => {
            stream.send_reset(Reason::CANCEL);
            Err(Unsent::Stalled)
        }
    }
}
