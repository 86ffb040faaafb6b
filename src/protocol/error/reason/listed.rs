//! The macro that makes the enum of reasons, and what is known of each, from one list.

macro_rules! reasons {
    ($($name:literal $variant:ident $answer:literal $meaning:literal $remedy:literal)+) => {
        /// The reason code of a request's outcome.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason { $(#[doc = $meaning] $variant),+ }
        impl Reason {
            /// The reason of that code.
            #[must_use]
            pub fn named(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == code)
            }

            /// Every reason, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value of the field and of the label `reason`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The status and the `error` of the answer.
            #[must_use]
            pub const fn answer(self) -> &'static str {
                match self { $(Self::$variant => $answer),+ }
            }

            /// A description of what happened.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }

            /// The remedy for the operator.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy),+ }
            }
        }
    };
}

pub(super) use reasons;
