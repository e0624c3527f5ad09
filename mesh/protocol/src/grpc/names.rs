//! Enumerations by their names, as protobuf's JSON has them.

use serde::Serializer;

use super::messages::{
    DataType, model_input::Format, model_instance_group::Kind, model_queue_policy::TimeoutAction,
    model_sequence_batching::control,
};

// Messages hold numbers; only numbers of ours come here, so none is unknown.
macro_rules! names {
    ($($function:ident: $kind:ty;)*) => {$(
        pub(crate) fn $function<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(<$kind>::try_from(*number).unwrap_or_default().as_str_name())
        }
    )*};
}
names! {
    data_type: DataType;
    format: Format;
    instance_kind: Kind;
    timeout_action: TimeoutAction;
    control_kind: control::Kind;
}
