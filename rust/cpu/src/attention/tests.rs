//! Attention through the paged cache against a plain f64 reference, and against itself in other batches.

mod world;

use nanovllm_backend::{DType, HeadLayout};
use proptest::prelude::*;

use crate::isa::Isa;
use crate::testing::nmse;
use world::{Options, Place, World};

fn heads() -> impl Strategy<Value = HeadLayout> {
    let dims = prop::sample::select(vec![2usize, 6, 16, 32, 64, 80, 96, 128, 256]);
    (1usize..3, prop::sample::select(vec![1usize, 2, 3, 4, 7]), dims).prop_map(|(kv, group, head_dim)| HeadLayout {
        num_heads: kv * group,
        num_kv_heads: kv,
        head_dim,
    })
}

fn block_size() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![256usize, 512, 16, 48, 5, 1])
}

fn dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(vec![DType::F32, DType::Bf16])
}

/// From one position to more than there are, with those at which partitions begin and end together.
fn window() -> impl Strategy<Value = Option<usize>> {
    prop_oneof![
        1 => Just(None),
        2 => (1usize..40).prop_map(Some),
        2 => (40usize..1300).prop_map(Some),
        1 => prop::sample::select(vec![255usize, 256, 257, 512, usize::MAX]).prop_map(Some),
    ]
}

/// Sinks far below the scores, among them and so far above that next to nothing is left.
fn options() -> impl Strategy<Value = Options> {
    let soft_cap = prop_oneof![0.1f32..5.0, 5f32..60.0, 60f32..1e5];
    let sinks = (prop_oneof![4 => -5f32..10.0, 1 => Just(-1e4f32), 1 => 20f32..200.0], any::<u64>());
    let drawn = (0.1f64..3.0, window(), prop::option::of(soft_cap), prop::option::of(sinks));
    prop_oneof![
        1 => Just(Options::PLAIN),
        5 => drawn.prop_map(|(scale, window, soft_cap, sinks)| Options { scale, window, soft_cap, sinks }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    /// Over a bf16 cache AVX-512 BF16 rounds the queries too: close to the reference that does so, and near the other one.
    #[test]
    fn attention_is_softmax_of_scaled_products(
        heads in heads(), options in options(), block_size in block_size(), dtype in dtype(), seed: u64,
        before in 0usize..1100, queries in 1usize..30, shared: bool,
    ) {
        for isa in Isa::available() {
            let place = Place { isa, threads: 2, block_size, dtype, shared };
            let mut world = World::new(place, heads, &options, &[(seed, before + queries)]);
            if before > 0 {
                // What no query sees may be anything, and need not be anywhere.
                world.store(0, before, options.first_seen(before));
            }
            world.step(&[(0, queries)], true);
            let rounds = isa == Isa::Avx512Bf16 && dtype == DType::Bf16;
            for p in before..before + queries {
                let error = nmse(world.output(0, p), &world.reference(0, p, rounds));
                prop_assert!(error < 1e-9, "{isa}, position {p}: {error:e}");
                let plain = options.window.is_none() && options.sinks.is_none() && options.scale <= 1.0;
                if rounds && plain && heads.head_dim >= 16 {
                    let error = nmse(world.output(0, p), &world.reference(0, p, false));
                    prop_assert!(error < 2e-5, "{isa}, position {p}, against exact queries: {error:e}");
                }
            }
        }
    }
}

/// The bits of what a schedule gives for sequence 0.
fn bits(world: &World) -> Vec<u32> {
    world.outputs[0].iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Prefilled whole, in chunks, decoded one by one, beside other sequences, on other threads, blocks and layers: the same
    /// bits.
    #[test]
    fn a_result_depends_on_its_sequence_alone(
        group in 1usize..5, head_dim in prop::sample::select(vec![8usize, 40, 64]), options in options(), dtype in dtype(),
        sizes in (block_size(), block_size()), seed: u64, tokens in 1usize..640, chunk in 1usize..200,
    ) {
        let heads = HeadLayout { num_heads: group, num_kv_heads: 1, head_dim };
        for isa in Isa::available() {
            let place = Place { isa, threads: 1, block_size: sizes.0, dtype, shared: false };
            let mut whole = World::new(place, heads, &options, &[(seed, tokens)]);
            whole.step(&[(0, tokens)], true);
            let expected = bits(&whole);
            prop_assert!(whole.outputs[0].iter().all(|x| x.is_finite()));

            let place = Place { threads: 2, block_size: sizes.1, ..place };
            let mut one_by_one = World::new(place, heads, &options, &[(seed, tokens)]);
            for _ in 0..tokens {
                one_by_one.step(&[(0, 1)], true);
            }
            prop_assert_eq!(&bits(&one_by_one), &expected, "{} one by one", isa);

            let others = [(seed, tokens), (seed ^ 1, 300), (seed ^ 2, tokens)];
            let mut batch = World::new(Place { threads: 3, shared: true, ..place }, heads, &options, &others);
            batch.step(&[(1, 290)], true);
            while batch.done[0] < tokens {
                let n = chunk.min(tokens - batch.done[0]);
                let mut rows = vec![(2, n), (0, n)];
                if batch.done[1] < 300 {
                    rows.insert(1, (1, 1));
                }
                batch.step(&rows, true);
            }
            prop_assert_eq!(&bits(&batch), &expected, "{} in chunks of {} beside others", isa, chunk);
        }
    }
}

/// One sequence of 600 tokens, attended to at once.
fn attended(isa: Isa, options: &Options, factor: f32) -> World {
    let heads = HeadLayout { num_heads: 2, num_kv_heads: 1, head_dim: 4 };
    let place = Place { isa, threads: 1, block_size: 16, dtype: DType::F32, shared: false };
    let mut world = World::new(place, heads, options, &[(1, 600)]);
    for x in &mut world.sequences[0].rows {
        *x *= factor;
    }
    world.step(&[(0, 600)], true);
    world
}

#[test]
fn enormous_scores_stay_finite() {
    for isa in Isa::available() {
        for (soft_cap, level) in [(None, None), (Some(30.0), None), (None, Some(1e30)), (Some(30.0), Some(-1e30))] {
            for window in [None, Some(3), Some(300)] {
                let options = Options { soft_cap, window, sinks: level.map(|level| (level, 7)), ..Options::PLAIN };
                let world = attended(isa, &options, 1e6);
                assert!(world.outputs[0].iter().all(|x| x.is_finite()), "{isa}, {options:?}");
            }
        }
    }
}

#[test]
fn a_sink_takes_everything_or_nothing_at_its_extremes() {
    for isa in Isa::available() {
        for window in [None, Some(1), Some(257)] {
            let with = |level: f32| attended(isa, &Options { window, sinks: Some((level, 3)), ..Options::PLAIN }, 1.0);
            for level in [200.0, 1e30, f32::INFINITY] {
                assert!(with(level).outputs[0].iter().all(|&x| x == 0.0), "{isa}, a sink of {level}");
            }
            let without = attended(isa, &Options { window, ..Options::PLAIN }, 1.0);
            for level in [-1e30, f32::NEG_INFINITY] {
                assert_eq!(bits(&with(level)), bits(&without), "{isa}, a sink of {level}");
            }
        }
    }
}
