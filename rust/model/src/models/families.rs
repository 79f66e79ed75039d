//! The macro that makes the registry of its rows.

/// Makes of the rows the enumeration of families with their configurations, the table of rows, and the way from one to
/// the other.
macro_rules! families {
    ($($name:ident($config:ty), $class:literal, $model_type:literal, $gguf:literal;)*) => {
        /// A model's family with its configuration.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Family {
            $(#[doc = concat!("`", $class, "`; GGUF's `", $gguf, "`.")] $name($config),)*
        }

        #[allow(non_upper_case_globals)] // each is named for its variant
        mod rows {
            use super::*;

            $(pub(super) static $name: FamilyRow = FamilyRow {
                name: stringify!($name),
                hugging_face: HuggingFaceName { class: $class, model_type: $model_type },
                gguf: $gguf,
                also_called: <$config>::also_called,
                json_defaults: <$config>::json_defaults,
                quant_methods: <$config>::quant_methods,
                json_settings: <$config>::json_settings,
                gguf_settings: <$config>::gguf_settings,
                from_json: |json, base| <$config>::from_json(json, base).map(Family::$name),
                from_gguf: |keys, base| <$config>::from_gguf(keys, base).map(Family::$name),
            };)*
        }

        /// Every family.
        pub static FAMILIES: &[&FamilyRow] = &[$(&rows::$name),*];

        impl Family {
            /// The family's row.
            pub fn row(&self) -> &'static FamilyRow {
                match self { $(Self::$name(_) => &rows::$name,)* }
            }

            /// What the family's own configuration does.
            pub(crate) fn config(&self) -> &dyn FamilyConfig {
                match self { $(Self::$name(config) => config,)* }
            }

            /// [`FamilyConfig::decoder`] of the family.
            pub(crate) fn decoder<B: Backend>(
                &self,
                base: &BaseConfig,
                weights: &mut Weights<'_, B>,
                positions: usize,
            ) -> Result<Box<dyn Decoder<B>>> {
                match self { $(Self::$name(config) => config.decoder(base, weights, positions),)* }
            }
        }
    };
}
