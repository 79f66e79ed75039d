//! Mixtures of experts.

use super::check::assert_within;
use super::promise::Promise;
use super::random::{Random, StoredMatrix, random_tensor, room, upload};
use super::reference;
use crate::{Activation, Backend, DType, Experts, Route, Routing};

/// A mixture of random experts.
struct Mixture {
    hidden: usize,
    width: usize,
    gate_up: Vec<StoredMatrix>,
    down: Vec<StoredMatrix>,
    biases: Option<[Vec<f32>; 2]>,
    factors: Option<Vec<f32>>,
    activation: Activation,
    each: usize,
    normalized: bool,
}

impl Mixture {
    /// Of experts whose first projection has one type and whose second another; widths are odd where blocks allow it.
    fn new(random: &mut Random, [up, back]: [DType; 2], experts: usize, each: usize, variant: usize) -> Self {
        let width_of = |block: usize, odd: usize| if block == 1 { odd } else { block.max(32) };
        let (hidden, width) = (width_of(up.block_size(), 67), width_of(back.block_size(), 35));
        let biases = (variant % 2 == 1).then(|| [random.values(experts * 2 * width), random.values(experts * hidden)]);
        Self {
            hidden,
            width,
            gate_up: (0..experts).map(|_| StoredMatrix::new(random, up, 2 * width, hidden)).collect(),
            down: (0..experts).map(|_| StoredMatrix::new(random, back, hidden, width)).collect(),
            biases,
            factors: (variant / 2 % 2 == 1).then(|| random.values(experts)),
            activation: [Activation::GeluTanh, Activation::Silu, Activation::SwigluOai][variant % 3],
            each,
            normalized: variant.is_multiple_of(2),
        }
    }

    /// What the device gives for `x` and `logits`.
    fn run<B: Backend>(&self, backend: &B, x: &B::Tensor, logits: &B::Tensor, rows: usize) -> Vec<f32> {
        let pack = |stored: &[StoredMatrix]| stored.iter().map(|s| s.pack(backend)).collect::<Vec<_>>();
        let (gate_up, down) = (pack(&self.gate_up), pack(&self.down));
        let experts = self.gate_up.len();
        let [gate_up_bias, down_bias] = [0, 1].map(|i| {
            let biases = self.biases.as_ref()?;
            Some(upload(backend, &biases[i], experts, biases[i].len() / experts))
        });
        let factors = self.factors.as_ref().map(|factors| upload(backend, factors, 1, experts));
        let routing = Routing { experts_per_row: self.each, normalized: self.normalized, factors: factors.as_ref() };
        let experts = Experts {
            gate_up: &gate_up,
            down: &down,
            gate_up_bias: gate_up_bias.as_ref(),
            down_bias: down_bias.as_ref(),
            activation: self.activation,
        };
        let mut space = backend.expert_room(rows, self.each, self.hidden, self.width).expect("small");
        let mut out = room(backend, rows, self.hidden);
        backend.experts(x, logits, &routing, &experts, &mut space, &mut out);
        backend.download(&out)
    }

    /// What a row should become, in f64.
    fn expected(&self, x: &[f32], logits: &[f32]) -> Vec<f64> {
        let mut routes = vec![Route { expert: 0, weight: 0.0 }; self.each];
        Routing::<()> { experts_per_row: self.each, normalized: self.normalized, factors: None }.choose(
            logits,
            self.factors.as_deref(),
            &mut routes,
        );
        let mut sum = vec![0.0; self.hidden];
        for Route { expert, weight } in routes {
            let e = expert as usize;
            let bias =
                |i: usize, len: usize, j: usize| self.biases.as_ref().map_or(0.0, |b| f64::from(b[i][e * len + j]));
            let up = reference::linear(x, &self.gate_up[e].values, self.hidden);
            let up: Vec<f32> = up.iter().enumerate().map(|(j, y)| (y + bias(0, 2 * self.width, j)) as f32).collect();
            let gated: Vec<f32> = (0..self.width)
                .map(|j| reference::activate_and_mul(self.activation, up[j], up[self.width + j]) as f32)
                .collect();
            let down = reference::linear(&gated, &self.down[e].values, self.width);
            for (j, (sum, y)) in sum.iter_mut().zip(down).enumerate() {
                *sum += f64::from(weight) * (y + bias(1, self.hidden, j));
            }
        }
        sum
    }
}

/// Logits that send all rows to the same experts, or each to its own.
fn logits(random: &mut Random, rows: usize, experts: usize, all_alike: bool) -> Vec<f32> {
    let one = random.values(experts);
    (0..rows).flat_map(|_| if all_alike { one.clone() } else { random.values(experts) }).collect()
}

/// Every promised type, alone and beside another; more experts than rows and fewer, one expert taking all rows, every option, and
/// a logit that is not a number.
pub(super) fn experts_of_every_type<B: Backend>(backend: &B, promise: &Promise) {
    let mut random = Random::new(31);
    for (i, &dtype) in promise.dtypes.iter().enumerate() {
        for (j, (experts, each, rows)) in [(5, 2, 1), (3, 3, 20), (9, 1, 4), (2, 1, 70)].into_iter().enumerate() {
            let other = promise.dtypes[if j < 2 { i } else { (i + 1) % promise.dtypes.len() }];
            let mixture = Mixture::new(&mut random, [dtype, other], experts, each, i + j);
            let (x, data) = random_tensor(backend, &mut random, rows, mixture.hidden);
            let mut values = logits(&mut random, rows, experts, j % 2 == 1);
            if j == 2 {
                values[i % experts] = f32::NAN;
            }
            let got = mixture.run(backend, &x, &upload(backend, &values, rows, experts), rows);
            let expected: Vec<f64> = data
                .chunks(mixture.hidden)
                .zip(values.chunks(experts))
                .flat_map(|(x, logits)| mixture.expected(x, logits))
                .collect();
            // Two products follow each other, and each rounds its inputs, to the type of the weights at worst.
            let error = super::check::nmse(&got, &expected);
            let what = format!("{each} of {experts} experts of {dtype} and {other} for {rows} rows");
            let product = promise.product(dtype).max(promise.product(other));
            assert_within(backend, &what, error, 20.0 * product.max(1e-6));
        }
    }
}

/// A row's result depends neither on the rows beside it nor on their experts, to the last bit where the device promises that.
pub(super) fn rows_of_experts_are_their_own<B: Backend>(backend: &B, promise: &Promise) {
    let mut random = Random::new(32);
    let (rows, experts) = (13, 6);
    for &dtype in &promise.dtypes {
        let mixture = Mixture::new(&mut random, [dtype; 2], experts, 2, 0);
        let (x, data) = random_tensor(backend, &mut random, rows, mixture.hidden);
        let values = logits(&mut random, rows, experts, false);
        let together = mixture.run(backend, &x, &upload(backend, &values, rows, experts), rows);
        for (i, together) in together.chunks(mixture.hidden).enumerate() {
            let x = upload(backend, &data[i * mixture.hidden..(i + 1) * mixture.hidden], 1, mixture.hidden);
            let alone =
                mixture.run(backend, &x, &upload(backend, &values[i * experts..(i + 1) * experts], 1, experts), 1);
            let expected: Vec<f64> = together.iter().map(|&x| f64::from(x)).collect();
            let error = super::check::nmse(&alone, &expected);
            let limit = if promise.rows_are_exact { 0.0 } else { 1e-9 };
            assert_within(backend, &format!("row {i} of {dtype} experts"), error, limit);
        }
    }
}
