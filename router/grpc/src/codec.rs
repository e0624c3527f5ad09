//! How messages pass through the gRPC library: those of inference as bytes, which `mesh-protocol` reads and writes.

use bytes::{Buf, Bytes};
use mesh_protocol::grpc::{StreamReply, write_message, write_stream_message};
use mesh_types::InferResponse;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Room for what stands around an answer's tensors.
const HEAD_BYTES: usize = 256;

/// Hands a message on as it came; takes a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InferCodec;

/// Hands messages on as they came; takes a stream's answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamCodec;

/// One answer on a stream.
#[derive(Debug)]
pub(crate) enum StreamAnswer {
    /// The last of its request.
    Response(InferResponse),
    /// One after which others may come.
    Partial(InferResponse),
    Failed {
        id: Option<String>,
        message: String,
    },
}

/// Takes a message whole, without a copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole;

impl Decoder for Whole {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

/// Writes a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Response;

/// Makes room for the answer at once: its buffer would otherwise be moved as it grows.
fn make_room(response: &InferResponse, out: &mut EncodeBuf<'_>) {
    let data: usize = response.outputs.iter().map(|output| output.data.len()).sum();
    out.reserve(HEAD_BYTES + data);
}

impl Encoder for Response {
    type Item = InferResponse;
    type Error = Status;

    fn encode(&mut self, response: InferResponse, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        make_room(&response, out);
        write_message(&response, out);
        Ok(())
    }
}

/// Writes a stream's answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer;

impl Encoder for Answer {
    type Item = StreamAnswer;
    type Error = Status;

    fn encode(&mut self, answer: StreamAnswer, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match &answer {
            StreamAnswer::Response(response) => {
                make_room(response, out);
                write_stream_message(&StreamReply::Response(response), out);
            }
            StreamAnswer::Partial(response) => {
                make_room(response, out);
                write_stream_message(&StreamReply::Partial(response), out);
            }
            StreamAnswer::Failed { id, message } => {
                let id = id.as_deref();
                write_stream_message(&StreamReply::Failed { id, message }, out);
            }
        }
        Ok(())
    }
}

impl Codec for InferCodec {
    type Encode = InferResponse;
    type Decode = Bytes;
    type Encoder = Response;
    type Decoder = Whole;

    fn encoder(&mut self) -> Response {
        Response
    }

    fn decoder(&mut self) -> Whole {
        Whole
    }
}

impl Codec for StreamCodec {
    type Encode = StreamAnswer;
    type Decode = Bytes;
    type Encoder = Answer;
    type Decoder = Whole;

    fn encoder(&mut self) -> Answer {
        Answer
    }

    fn decoder(&mut self) -> Whole {
        Whole
    }
}
