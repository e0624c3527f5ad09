//! The bench's models: a small perceptron, where the mesh's own cost shows, a compute-bound transformer encoder, and a classifier
//! with it in three parts and in one.

use std::path::Path;

use anyhow::{Context, ensure};
use tch::{
    CModule, Device, Kind, Tensor,
    nn::{self, Module},
};

const LAYERS: i64 = 4;
/// Of the model whose loading is measured: about 100 MB.
const LARGE_LAYERS: i64 = 32;
const WIDTH: i64 = 256;
const HEADS: i64 = 4;
const TOKENS: i64 = 64;
const CLASSES: i64 = 10;

/// Writes the models to `out` and checks that each takes any batch size.
pub(crate) fn run(out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    tch::manual_seed(1);
    let _no_grad = tch::no_grad_guard();
    let mut variables = nn::VarStore::new(Device::Cpu);
    let perceptron = perceptron(&(variables.root() / "mlp"));
    let encoder = Encoder::new(&(variables.root() / "encoder"), LAYERS);
    let large = Encoder::new(&(variables.root() / "large"), LARGE_LAYERS);
    let head = nn::linear(variables.root() / "head", WIDTH, CLASSES, nn::LinearConfig::default());
    // A trace keeps weights as constants, and takes only those that want no gradient.
    variables.freeze();
    write(&|x| perceptron.forward(x), &[30], &out.join("mlp.pt"))?;
    let row = [TOKENS, WIDTH];
    write(&|x| encoder.forward(x), &row, &out.join("encoder.pt"))?;
    write(&|x| large.forward(x), &row, &out.join("large.pt"))?;
    // The same under another name, for a model that comes and goes.
    std::fs::copy(out.join("mlp.pt"), out.join("small.pt"))?;
    let classify = |x: &Tensor| head.forward(&encoder.forward(x).mean_dim(1i64, false, Kind::Float));
    let post = |x: &Tensor| x.softmax(-1, Kind::Float);
    write(&normalise, &row, &out.join("normalise.pt"))?;
    write(&classify, &row, &out.join("classify.pt"))?;
    write(&post, &[CLASSES], &out.join("post.pt"))?;
    write(&|x| post(&classify(&normalise(x))), &row, &out.join("composed.pt"))
}

/// Each token's numbers with mean 0 and spread 1.
fn normalise(x: &Tensor) -> Tensor {
    let mean = x.mean_dim(-1i64, true, Kind::Float);
    let spread = x.std_dim(-1i64, true, true) + 1e-5;
    (x - mean) / spread
}

fn write(forward: &dyn Fn(&Tensor) -> Tensor, row: &[i64], path: &Path) -> anyhow::Result<()> {
    let input = |rows: i64| Tensor::randn([&[rows], row].concat(), (Kind::Float, Device::Cpu));
    let mut closure = |inputs: &[Tensor]| inputs.iter().map(forward).collect();
    CModule::create_by_tracing("BenchModel", "forward", &[input(2)], &mut closure)?.save(path)?;
    let module = CModule::load(path)?;
    for rows in [1, 8] {
        let x = input(rows);
        let (traced, expected) = (module.forward_ts(&[&x])?, forward(&x));
        ensure!(
            traced.allclose(&expected, 1e-4, 1e-5, false),
            "{} differs at batch {rows}",
            path.display()
        );
    }
    Ok(())
}

fn perceptron(root: &nn::Path<'_>) -> nn::Sequential {
    let linear = |name: &str, from, to| nn::linear(root / name, from, to, nn::LinearConfig::default());
    nn::seq()
        .add(linear("a", 30, 64))
        .add_fn(Tensor::relu)
        .add(linear("b", 64, 32))
        .add_fn(Tensor::relu)
        .add(linear("c", 32, 2))
}

/// A pre-norm transformer encoder.
#[derive(Debug)]
struct Encoder {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    norm_attention: nn::LayerNorm,
    query_key_value: nn::Linear,
    project: nn::Linear,
    norm_feed: nn::LayerNorm,
    widen: nn::Linear,
    narrow: nn::Linear,
}

impl Encoder {
    fn new(root: &nn::Path<'_>, layers: i64) -> Self {
        Self {
            layers: (0..layers).map(|index| Layer::new(&(root / index))).collect(),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.layers.iter().fold(x.shallow_clone(), |x, layer| layer.forward(&x))
    }
}

impl Layer {
    fn new(root: &nn::Path<'_>) -> Self {
        let linear = |name: &str, from, to| nn::linear(root / name, from, to, nn::LinearConfig::default());
        let norm = |name: &str| nn::layer_norm(root / name, vec![WIDTH], nn::LayerNormConfig::default());
        Self {
            norm_attention: norm("norm_attention"),
            query_key_value: linear("qkv", WIDTH, 3 * WIDTH),
            project: linear("project", WIDTH, WIDTH),
            norm_feed: norm("norm_feed"),
            widen: linear("widen", WIDTH, 4 * WIDTH),
            narrow: linear("narrow", 4 * WIDTH, WIDTH),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attend(&self.norm_attention.forward(x));
        let fed = self
            .narrow
            .forward(&self.widen.forward(&self.norm_feed.forward(&x)).gelu("none"));
        x + fed
    }

    // No shape is read from a tensor: a trace would write the example's batch size into the model.
    fn attend(&self, x: &Tensor) -> Tensor {
        let heads = |t: Tensor| t.view([-1, TOKENS, HEADS, WIDTH / HEADS]).transpose(1, 2);
        let mut parts = self.query_key_value.forward(x).split(WIDTH, -1).into_iter().map(heads);
        let (Some(query), Some(key), Some(value)) = (parts.next(), parts.next(), parts.next()) else {
            return x.shallow_clone();
        };
        let scale = (f64::from(u32::try_from(WIDTH / HEADS).unwrap_or(1))).sqrt();
        let weights = (query.matmul(&key.transpose(-2, -1)) / scale).softmax(-1, Kind::Float);
        let mixed = weights.matmul(&value).transpose(1, 2).reshape([-1, TOKENS, WIDTH]);
        self.project.forward(&mixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_take_any_batch_size() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path()).unwrap();
        for name in [
            "mlp",
            "encoder",
            "normalise",
            "classify",
            "post",
            "composed",
            "large",
            "small",
        ] {
            assert!(folder.path().join(format!("{name}.pt")).exists(), "{name}");
        }
    }
}
