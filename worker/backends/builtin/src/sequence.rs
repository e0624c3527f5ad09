//! Stateful models of whole numbers (INT32): for the protocol's sequence extension, and to show whose state is whose.
//!
//! `sequence` and `sequence_sum` do what the models of Triton's clients for sequences do: the first adds 1 to the first value
//! of a sequence, the second answers the sum so far and keeps it itself, by correlation id or else by row; both add the
//! correlation id to the last answer, where the configuration has one. `sum_state` and `join_state` have their state kept for
//! them: the sum so far, and all values so far. Each can run out of memory on purpose: for more rows than `oom_above`, if any of
//! them is a sequence's, before anything has moved.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use mesh_backend::{BackendError, BatchInput, BatchInputs, BatchOutputs, LoadSpec, LoadedModel};
use mesh_types::{ControlKind, DataType, ModelConfig, Shape, Tensor};

/// Their names.
pub(crate) const NAMES: [&str; 4] = ["sequence", "sequence_sum", "sum_state", "join_state"];
/// The most sums that `sequence_sum` keeps; that used longest ago gives way, because it is not told of sequences that are
/// aborted.
const MAX_SUMS: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Sum,
    SumState,
    JoinState,
}

/// Where the control tensors are among the inputs.
#[derive(Debug, Default)]
struct Controls {
    start: Option<usize>,
    ready: Option<usize>,
    end: Option<usize>,
    corrid: Option<usize>,
}

/// A stateful model.
#[derive(Debug)]
pub(crate) struct SequenceModel {
    kind: Kind,
    config: Arc<ModelConfig>,
    controls: Controls,
    /// There is room for so many rows (`oom_above`).
    room: u32,
    /// By id or row: the sum so far, and when it was used.
    sums: HashMap<String, (i32, u64)>,
    uses: u64,
}

/// What a row's control tensors say.
struct Row {
    start: bool,
    ready: bool,
    end: bool,
    id: Option<String>,
}

impl Row {
    /// One without a request, or a warm-up's.
    fn is_nobodys(&self) -> bool {
        !self.ready || self.id.as_ref().is_some_and(|id| id.is_empty() || id == "0")
    }
}

impl SequenceModel {
    /// The model of this name; none where it is no stateful one.
    pub(crate) fn named(name: &str, spec: &LoadSpec) -> Option<Result<Self, BackendError>> {
        let kind = match name {
            "sequence" => Kind::Plain,
            "sequence_sum" => Kind::Sum,
            "sum_state" => Kind::SumState,
            "join_state" => Kind::JoinState,
            _ => return None,
        };
        Some(Self::new(kind, spec.config.clone()))
    }

    fn new(kind: Kind, config: Arc<ModelConfig>) -> Result<Self, BackendError> {
        let refuse = |problem: &str| Err(BackendError::Load(problem.to_owned()));
        let Some(sequence) = &config.sequence_batching else {
            return refuse("a stateful model needs sequence_batching");
        };
        let states = sequence.state.len();
        let has_state = matches!(kind, Kind::SumState | Kind::JoinState);
        let whole = config.input.first().into_iter().chain(config.output.first());
        let states_are = sequence.state.iter().all(|state| state.data_type == DataType::Int32);
        if !whole.into_iter().all(|spec| spec.datatype == DataType::Int32) || !states_are {
            return refuse("the built-in stateful models take, keep and answer INT32");
        }
        if states != usize::from(has_state) {
            return refuse("sum_state and join_state have one state, sequence and sequence_sum none");
        }
        let place = |kind: ControlKind| {
            let name = sequence.control(kind)?.0;
            config.input.iter().position(|input| input.name == name)
        };
        let controls = Controls {
            start: place(ControlKind::Start),
            ready: place(ControlKind::Ready),
            end: place(ControlKind::End),
            corrid: place(ControlKind::Corrid),
        };
        let room = config.parameters.get("oom_above").and_then(|value| value.as_u64());
        Ok(Self {
            kind,
            controls,
            room: room.and_then(|rows| u32::try_from(rows).ok()).unwrap_or(u32::MAX),
            config,
            sums: HashMap::new(),
            uses: 0,
        })
    }

    fn has_room(&self, batch: &BatchInputs<'_>) -> Result<(), BackendError> {
        if batch.rows <= self.room || self.rows(batch)?.iter().all(Row::is_nobodys) {
            return Ok(());
        }
        let problem = format!("{} rows, and there is room for {}", batch.rows, self.room);
        Err(BackendError::NoRoomForInputs(problem))
    }

    fn rows(&self, batch: &BatchInputs<'_>) -> Result<Vec<Row>, BackendError> {
        let data = |place: Option<usize>| place.and_then(|place| batch.inputs.get(place)).map(joined);
        let (start, ready) = (data(self.controls.start), data(self.controls.ready));
        let (end, ids) = (data(self.controls.end), data(self.controls.corrid));
        let flag = |control: &Option<(DataType, Vec<u8>)>, row: usize, otherwise: bool| match control {
            None => otherwise,
            Some((datatype, data)) => {
                element(*datatype, data, row).is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0))
            }
        };
        let count = usize::try_from(batch.rows).unwrap_or(0);
        (0..count)
            .map(|row| {
                let id = match &ids {
                    None => None,
                    Some((datatype, data)) => Some(id_of(*datatype, data, row)?),
                };
                Ok(Row {
                    start: flag(&start, row, false),
                    ready: flag(&ready, row, true),
                    end: flag(&end, row, false),
                    id,
                })
            })
            .collect()
    }

    fn answers(&mut self, rows: &[Row], values: &[i32]) -> Result<Vec<i32>, BackendError> {
        let mut answers = Vec::with_capacity(values.len());
        for (index, (row, value)) in rows.iter().zip(values).enumerate() {
            if row.is_nobodys() {
                answers.push(0);
                continue;
            }
            let mut answer = match self.kind {
                Kind::Plain => value.wrapping_add(i32::from(row.start)),
                _ => self.sum(row, index, *value)?,
            };
            if row.end
                && let Some(id) = &row.id
            {
                let number: u64 = id.parse().map_err(|_| {
                    BackendError::InvalidInput(format!(
                        "the correlation id '{id}' is no number, which is added at the end"
                    ))
                })?;
                // Wraps like the sums themselves.
                answer = answer.wrapping_add(i32::from_le_bytes(low_bytes(number)));
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    fn sum(&mut self, row: &Row, index: usize, value: i32) -> Result<i32, BackendError> {
        let name = row.id.clone().unwrap_or_else(|| index.to_string());
        let before = match self.sums.get(&name) {
            _ if row.start => 0,
            Some((sum, _)) => *sum,
            None => {
                let problem = format!("no sequence '{name}' has begun on this instance");
                return Err(BackendError::Execution(problem));
            }
        };
        let sum = before.wrapping_add(value);
        if row.end {
            self.sums.remove(&name);
            return Ok(sum);
        }
        self.uses += 1;
        if self.sums.len() >= MAX_SUMS && !self.sums.contains_key(&name) {
            let oldest = self.sums.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.sums.remove(&oldest);
            }
        }
        self.sums.insert(name, (sum, self.uses));
        Ok(sum)
    }

    /// The answer and the next state, which are the same.
    fn with_state(&self, batch: &BatchInputs<'_>) -> Result<(Shape, Vec<u8>), BackendError> {
        let [input, .., state] = batch.inputs.as_slice() else {
            return Err(BackendError::InvalidInput("an input and a state are needed".to_owned()));
        };
        let (values, before) = (joined(input).1, joined(state).1);
        if self.kind == Kind::SumState {
            let sums = numbers(&values).zip(numbers(&before));
            let sums = sums.flat_map(|(value, sum)| sum.wrapping_add(value).to_le_bytes());
            return Ok((input.shape.clone(), sums.collect()));
        }
        // All but the last extent are the rows.
        let rows = if self.config.batches() {
            usize::try_from(batch.rows).unwrap_or(1)
        } else {
            1
        };
        let (wide, old) = (values.len() / rows.max(1), before.len() / rows.max(1));
        let mut all = Vec::with_capacity(values.len() + before.len());
        for row in 0..rows {
            all.extend_from_slice(before.get(row * old..(row + 1) * old).unwrap_or_default());
            all.extend_from_slice(values.get(row * wide..(row + 1) * wide).unwrap_or_default());
        }
        let mut shape = input.shape.clone();
        let longer = u64::try_from((wide + old) / size_of::<i32>()).unwrap_or(u64::MAX);
        shape.last_mut().into_iter().for_each(|last| *last = longer);
        Ok((shape, all))
    }
}

impl LoadedModel for SequenceModel {
    fn execute(&mut self, batch: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        self.has_room(batch)?;
        let missing = || BackendError::InvalidInput("an input is missing".to_owned());
        let input = batch.inputs.first().ok_or_else(missing)?;
        let (shape, data) = match self.kind {
            Kind::SumState | Kind::JoinState => self.with_state(batch)?,
            Kind::Plain | Kind::Sum => {
                let rows = self.rows(batch)?;
                let values: Vec<i32> = numbers(&joined(input).1).collect();
                let answers = self.answers(&rows, &values)?;
                (
                    input.shape.clone(),
                    answers.into_iter().flat_map(i32::to_le_bytes).collect(),
                )
            }
        };
        let data = Bytes::from(data);
        let outputs = self.config.output.iter().map(|spec| Tensor {
            name: Arc::from(spec.name.as_str()),
            datatype: spec.datatype,
            shape: shape.clone(),
            data: data.clone(),
        });
        Ok(BatchOutputs {
            outputs: outputs.collect(),
        })
    }

    fn memory_bytes(&self) -> u64 {
        0
    }
}

fn joined(input: &BatchInput<'_>) -> (DataType, Vec<u8>) {
    let mut buffer = Vec::new();
    input.gather_into(&mut buffer);
    (input.spec.datatype, buffer)
}

fn numbers(data: &[u8]) -> impl Iterator<Item = i32> + '_ {
    data.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes))
}

fn low_bytes(number: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = number.to_le_bytes();
    [a, b, c, d]
}

fn element(datatype: DataType, data: &[u8], row: usize) -> Option<&[u8]> {
    let size = datatype.element_bytes()?;
    data.get(row * size..(row + 1) * size)
}

fn id_of(datatype: DataType, data: &[u8], row: usize) -> Result<String, BackendError> {
    let missing = || BackendError::InvalidInput("a correlation id is missing".to_owned());
    if datatype == DataType::Bytes {
        let mut rest = data;
        for at in 0.. {
            let (prefix, after) = rest.split_first_chunk::<4>().ok_or_else(missing)?;
            let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
            let (text, after) = after.split_at_checked(length).ok_or_else(missing)?;
            if at == row {
                return Ok(String::from_utf8_lossy(text).into_owned());
            }
            rest = after;
        }
    }
    let bytes = element(datatype, data, row).ok_or_else(missing)?;
    let mut number = [0; 8];
    for (to, from) in number.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(u64::from_le_bytes(number).to_string())
}
