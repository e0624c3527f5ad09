//! What a stateful model's inputs and outputs are beyond those of its callers: worked out once, when it is loaded.

use mesh_backend::LoadSpec;
use mesh_types::{Control, ControlKind, CorrelationId, DataType, Fault, FaultClass, FaultSource, ModelConfig};

use super::{StateTensor, Step};

/// How a control tensor's element is written.
#[derive(Debug, Clone)]
enum Encoding {
    /// For false and true.
    Flag(Vec<u8>, Vec<u8>),
    Id(DataType),
}

/// A state: which output becomes it, and what it is at first.
#[derive(Debug, Clone)]
pub(crate) struct StatePlan {
    pub(crate) name: String,
    pub(crate) output: usize,
    pub(crate) datatype: DataType,
    pub(crate) dims: Vec<i64>,
    pub(crate) initial: StateTensor,
}

/// The tensors of a stateful model.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    controls: Vec<(ControlKind, Encoding)>,
    pub(crate) states: Vec<StatePlan>,
    /// The callers' inputs come first, and so do their outputs.
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Whether a sequence has a row of its own, and rows between those with requests are there without one.
    pub(crate) padded: bool,
    /// Whether states' extents may differ from one sequence to the next.
    pub(crate) varies: bool,
}

impl Plan {
    /// The plan for a stateful model, and its specification as a runtime sees it; none for any other.
    pub(crate) fn of(spec: &LoadSpec) -> Result<Option<(Self, LoadSpec)>, Fault> {
        let Some(whole) = spec.config.with_sequence_tensors() else {
            return Ok(None);
        };
        let plan = Self::from_config(&spec.config, &whole)?;
        let runtime = LoadSpec {
            config: whole.into(),
            ..spec.clone()
        };
        Ok(plan.map(|plan| (plan, runtime)))
    }

    fn from_config(config: &ModelConfig, whole: &ModelConfig) -> Result<Option<Self>, Fault> {
        let Some(sequence) = &config.sequence_batching else {
            return Ok(None);
        };
        let wrong = |what: String| Fault::new(FaultClass::InvalidArgument, FaultSource::Model, what);
        let mut controls = Vec::new();
        for input in &sequence.control_input {
            let control = input.control.first();
            let encoding = control.and_then(|control| Some((control.kind, Encoding::of(control)?)));
            let problem = || wrong(format!("control input '{}' has no value", input.name));
            controls.push(encoding.ok_or_else(problem)?);
        }
        let mut states = Vec::new();
        for state in &sequence.state {
            let output = whole.output.iter().position(|output| output.name == state.output_name);
            let problem = || wrong(format!("there is no output '{}' for a state", state.output_name));
            let (extents, bytes) = state.initial().map_err(|error| wrong(error.to_string()))?;
            states.push(StatePlan {
                name: state.output_name.clone(),
                output: output.ok_or_else(problem)?,
                datatype: state.data_type,
                dims: state.dims.clone(),
                initial: StateTensor {
                    shape: extents.into_iter().collect(),
                    data: bytes.into(),
                },
            });
        }
        Ok(Some(Self {
            controls,
            varies: states.iter().any(|state| state.dims.contains(&-1)),
            states,
            inputs: config.input.len(),
            outputs: config.output.len(),
            padded: sequence.oldest.is_none() && config.batches() && sequence.control(ControlKind::Ready).is_some(),
        }))
    }

    /// Whether the model keeps its state itself.
    pub(crate) fn keeps_itself(&self) -> bool {
        self.states.is_empty()
    }

    pub(crate) fn controls(&self) -> usize {
        self.controls.len()
    }

    /// The element of a control tensor for a row, which may hold no request.
    pub(crate) fn element(&self, control: usize, step: Option<&Step>, into: &mut Vec<u8>) {
        let Some((kind, encoding)) = self.controls.get(control) else {
            return;
        };
        match encoding {
            Encoding::Id(datatype) => write_id(*datatype, step.map(|step| &step.told), into),
            Encoding::Flag(no, yes) => {
                let holds = match kind {
                    ControlKind::Start => step.is_some_and(|step| step.start),
                    ControlKind::End => step.is_some_and(|step| step.end),
                    ControlKind::Ready => step.is_some(),
                    ControlKind::Corrid => false,
                };
                into.extend_from_slice(if holds { yes } else { no });
            }
        }
    }
}

impl Encoding {
    fn of(control: &Control) -> Option<Self> {
        if control.kind == ControlKind::Corrid {
            return control.data_type.map(Self::Id);
        }
        if let [no, yes] = &*control.int32_false_true {
            return Some(Self::Flag(no.to_le_bytes().to_vec(), yes.to_le_bytes().to_vec()));
        }
        if let [no, yes] = &*control.fp32_false_true {
            return Some(Self::Flag(no.to_le_bytes().to_vec(), yes.to_le_bytes().to_vec()));
        }
        match &*control.bool_false_true {
            [no, yes] => Some(Self::Flag(vec![u8::from(*no)], vec![u8::from(*yes)])),
            _ => None,
        }
    }
}

/// A row without a request has the id 0, or an empty one.
fn write_id(datatype: DataType, id: Option<&CorrelationId>, into: &mut Vec<u8>) {
    let number = match id {
        Some(CorrelationId::Number(number)) => *number,
        // Texts for a model that is told numbers are refused before they come here.
        Some(CorrelationId::Text(_)) | None => 0,
    };
    match datatype.element_bytes() {
        // Ids that do not fit are refused before they come here; little endian, so the low bytes come first.
        Some(size) => into.extend(number.to_le_bytes().iter().take(size)),
        None => {
            let text = id.map(ToString::to_string).unwrap_or_default();
            into.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
            into.extend_from_slice(text.as_bytes());
        }
    }
}
