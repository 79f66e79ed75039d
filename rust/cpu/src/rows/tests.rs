//! Row-wise operations against plain f64 references.

use proptest::prelude::*;

use super::{activate_and_mul, add_rms_norm, gather_rows, rms_norm};
use nanovllm_backend::Activation;

use crate::isa::Isa;
use crate::team::Team;
use crate::tensor::Tensor;
use crate::testing::{Random, kernels, nmse, tensor};

fn norm_reference(x: &[f32], weight: &[f32], eps: f32) -> Vec<f64> {
    let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(&x, &w)| f64::from(x) * f64::from(w) / (mean + f64::from(eps)).sqrt()).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn norms_match(rows in 1usize..40, cols in 1usize..900, scale in -6i32..6, seed: u64) {
        let mut random = Random::new(seed);
        let x: Vec<f32> = random.values(rows * cols).into_iter().map(|x| x * 10f32.powi(scale)).collect();
        let r: Vec<f32> = random.values(rows * cols);
        let w = random.values(cols);
        let (xt, wt, eps) = (tensor(&x, rows, cols), tensor(&w, 1, cols), 1e-5);
        for isa in Isa::available() {
            let kernels = kernels(isa).rows;
            let team = Team::new(3).expect("threads");
            let mut out = Tensor::zeroed(rows, cols).expect("small");
            rms_norm(&team, &kernels, &xt, &wt, eps, &mut out);
            let mut residual = tensor(&r, rows, cols);
            let mut added = Tensor::zeroed(rows, cols).expect("small");
            add_rms_norm(&team, &kernels, &xt, &mut residual, &wt, eps, &mut added);
            for i in 0..rows {
                let row = &x[i * cols..][..cols];
                prop_assert!(nmse(out.row(i), &norm_reference(row, &w, eps)) < 1e-10, "{isa}");
                let sum: Vec<f32> = row.iter().zip(&r[i * cols..]).map(|(x, r)| r + x).collect();
                prop_assert_eq!(bits(residual.row(i)), bits(&sum));
                prop_assert!(nmse(added.row(i), &norm_reference(&sum, &w, eps)) < 1e-10, "{isa}");
                let mut alone = Tensor::zeroed(1, cols).expect("small");
                rms_norm(&team, &kernels, &tensor(row, 1, cols), &wt, eps, &mut alone);
                prop_assert_eq!(bits(alone.as_slice()), bits(out.row(i)));
            }
        }
    }

    #[test]
    fn gating_and_gathering_match(rows in 1usize..40, n in 1usize..500, scale in -3i32..3, seed: u64) {
        let mut random = Random::new(seed);
        let x: Vec<f32> = random.values(rows * 2 * n).into_iter().map(|x| x * 10f32.powi(scale)).collect();
        let xt = tensor(&x, rows, 2 * n);
        let picks: Vec<u32> = (0..rows).map(|_| random.below(rows) as u32).collect();
        for isa in Isa::available() {
            let kernels = kernels(isa).rows;
            let team = Team::new(3).expect("threads");
            let mut out = Tensor::zeroed(rows, n).expect("small");
            activate_and_mul(&team, &kernels, Activation::Silu, &xt, &mut out);
            let expected: Vec<f64> = x
                .chunks(2 * n)
                .flat_map(|row| (0..n).map(|i| (f64::from(row[i]), f64::from(row[n + i]))))
                .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                .collect();
            prop_assert!(nmse(out.as_slice(), &expected) < 1e-10, "{isa}");
            let mut gathered = Tensor::zeroed(rows, 2 * n).expect("small");
            gather_rows(&team, &xt, &picks, &mut gathered);
            for (i, &pick) in picks.iter().enumerate() {
                prop_assert_eq!(gathered.row(i), xt.row(pick as usize));
            }
        }
    }
}

#[test]
fn silu_is_sane_far_out() {
    for isa in Isa::available() {
        let x = [-1e30f32, -200.0, -88.0, 0.0, 88.0, 1e30, f32::NAN, 1.0].map(|gate| [gate, 1.0]).concat();
        let mut out = Tensor::zeroed(8, 1).expect("small");
        activate_and_mul(
            &Team::new(1).expect("one"),
            &kernels(isa).rows,
            Activation::Silu,
            &tensor(&x, 8, 2),
            &mut out,
        );
        let y = out.as_slice();
        assert!(y[0].abs() < 1e-5 && y[1].abs() < 1e-30 && y[2].abs() < 1e-30, "{isa}: {y:?}");
        assert_eq!((y[3], y[4], y[5]), (0.0, 88.0, 1e30), "{isa}");
        assert!(y[6].is_nan(), "{isa}");
    }
}

/// The exponential behind the gate, over the range where nothing is clamped: a few units in the last place, whatever the value.
#[test]
fn silu_is_accurate_in_every_value() {
    let n = 20_000;
    let gates: Vec<f32> = (0..n).map(|i| (i as f32 / n as f32 - 0.5) * 170.0).collect();
    let x = [gates.clone(), vec![1.0; n]].concat();
    for isa in Isa::available() {
        let mut out = Tensor::zeroed(1, n).expect("small");
        activate_and_mul(
            &Team::new(1).expect("one"),
            &kernels(isa).rows,
            Activation::Silu,
            &tensor(&x, 1, 2 * n),
            &mut out,
        );
        for (&gate, &got) in gates.iter().zip(out.as_slice()) {
            let gate = f64::from(gate);
            let expected = gate / (1.0 + (-gate).exp());
            assert!((f64::from(got) - expected).abs() <= 5e-7 * expected.abs(), "{isa}: silu({gate}) = {got}");
        }
    }
}

#[test]
fn swiglu_oai_holds_its_values() {
    let pairs = [[1e30f32, 1e30], [-100.0, 1.0], [7.5, -9.0], [f32::NAN, 1.0], [1.0, f32::NAN], [-0.5, 3.0]];
    for isa in Isa::available() {
        let mut out = Tensor::zeroed(6, 1).expect("small");
        let (team, kernels) = (Team::new(1).expect("one"), kernels(isa).rows);
        activate_and_mul(&team, &kernels, Activation::SwigluOai, &tensor(&pairs.concat(), 6, 2), &mut out);
        let y = out.as_slice();
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let close = |y: f32, expected: f32| (y - expected).abs() <= 1e-6 * expected.abs().max(1e-3);
        assert!(close(y[0], 7.0 * sigmoid(11.914) * 8.0) && close(y[2], 7.0 * sigmoid(11.914) * -6.0), "{isa}: {y:?}");
        assert!(close(y[1], 0.0) && close(y[5], -0.5 * sigmoid(-0.851) * 4.0), "{isa}: {y:?}");
        assert!(y[3].is_nan() && y[4].is_nan(), "{isa}: {y:?}");
    }
}

/// The same of the gate that GELU is approximated by: near zero and far out, within a few units of the gate's last place.
#[test]
fn gelu_is_accurate_in_every_value() {
    let n = 20_000;
    let gates: Vec<f32> = (0..n).map(|i| (i as f32 / n as f32 - 0.5) * 40.0).collect();
    let x = [gates.clone(), vec![1.0; n]].concat();
    for isa in Isa::available() {
        let mut out = Tensor::zeroed(1, n).expect("small");
        let kernels = kernels(isa).rows;
        activate_and_mul(&Team::new(1).expect("one"), &kernels, Activation::GeluTanh, &tensor(&x, 1, 2 * n), &mut out);
        for (&gate, &got) in gates.iter().zip(out.as_slice()) {
            let gate = f64::from(gate);
            let angle = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044715 * gate.powi(3));
            let expected = gate / 2.0 * (1.0 + angle.tanh());
            assert!((f64::from(got) - expected).abs() <= 5e-7 * gate.abs(), "{isa}: gelu({gate}) = {got}");
        }
    }
}
