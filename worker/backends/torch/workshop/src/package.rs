//! A compiled package with nothing around it but the backend that opens it: only that knows how to call one safely.

use std::{path::Path, sync::Arc};

use anyhow::{Context, anyhow};
use mesh_backend::{Backend as _, BatchInput, BatchInputs, LoadSpec, LoadedModel};
use mesh_backend_torch::{TorchBackend, TorchOptions};
use mesh_types::{
    ArtifactFormat, DataType, DeviceId, ModelConfig, ModelId, ModelVersionKey, Shape, TenantId, TensorSpec, Version,
};

/// An open package of one input and one output, and what it is called with.
pub(crate) struct Package {
    model: Box<dyn LoadedModel>,
    config: Arc<ModelConfig>,
    shape: Shape,
    rows: u32,
    data: Vec<u8>,
}

impl Package {
    pub(crate) fn open(path: &Path, row: &[i64], output: &[i64], batch: i64) -> anyhow::Result<Self> {
        let rows = u32::try_from(batch).context("a batch has at least one row")?;
        let config = Arc::new(ModelConfig {
            max_batch_size: rows,
            input: vec![TensorSpec::new("x", DataType::Fp32, row)],
            output: vec![TensorSpec::new("y", DataType::Fp32, output)],
            ..ModelConfig::default()
        });
        let spec = LoadSpec {
            key: ModelVersionKey {
                tenant: TenantId::parse("workshop")?,
                model: ModelId::parse("package")?,
                version: Version::FIRST,
            },
            config: config.clone(),
            artifact: Some(path.to_path_buf()),
            format: ArtifactFormat::TorchAoti,
        };
        let model = TorchBackend::new(TorchOptions::default()).load(&spec, DeviceId::cpu(0));
        let model = model.map_err(|error| anyhow!("cannot load {}: {error}", path.display()))?;
        let extents = std::iter::once(batch).chain(row.iter().copied()).map(u64::try_from);
        let shape = extents
            .collect::<Result<Shape, _>>()
            .context("extents are at least 1")?;
        let elements = usize::try_from(shape.iter().product::<u64>())?;
        Ok(Self {
            model,
            config,
            shape,
            rows,
            data: 0.5f32.to_le_bytes().repeat(elements),
        })
    }

    pub(crate) fn call(&mut self) -> anyhow::Result<()> {
        let inputs = self.config.input.iter().map(|spec| BatchInput {
            spec,
            shape: self.shape.clone(),
            parts: vec![&self.data],
        });
        let batch = BatchInputs {
            rows: self.rows,
            inputs: inputs.collect(),
            parameters: None,
        };
        self.model.execute(&batch).map(drop).map_err(|error| anyhow!("{error}"))
    }
}
