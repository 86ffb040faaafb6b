//! Row structs: the struct lists the columns, and the statement that reads them is made from the list.

use sqlx::error::BoxDynError;

/// Defines the row struct of a table, with the order in which rows are read. Columns are read by position, since
/// looking up names takes a tenth of the time of a large load.
macro_rules! row {
    ($(#[$meta:meta])* $name:ident of $table:literal, also as text, by $order:literal {
        $first:ident: $first_type:ty $(, $column:ident: $type:ty)* $(,)?
    }) => {
        $crate::store::rows::row!($(#[$meta])* $name of $table by $order { $first: $first_type $(, $column: $type)* });

        impl $crate::store::rows::TextRow for $name {
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &[stringify!($first) $(, stringify!($column))*];

            fn from_texts(mut texts: impl Iterator<Item = Option<String>>) -> Result<Self, sqlx::Error> {
                Ok(Self {
                    $first: $crate::store::rows::value(stringify!($first), &mut texts)?,
                    $($column: $crate::store::rows::value(stringify!($column), &mut texts)?,)*
                })
            }
        }
    };
    ($(#[$meta:meta])* $name:ident of $table:literal by $order:literal { $first:ident: $first_type:ty $(, $column:ident: $type:ty)* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Hash)]
        pub(super) struct $name {
            pub(super) $first: $first_type,
            $(pub(super) $column: $type,)*
        }

        impl $name {
            /// Returns the statement that reads the rows from the table, named `c`, with SQL before and after it.
            pub(super) fn select(before: &str, behind: &str) -> sqlx::AssertSqlSafe<String> {
                const COLUMNS: &str = concat!("c.", stringify!($first) $(, ", c.", stringify!($column))*);
                sqlx::AssertSqlSafe(format!("select {COLUMNS} from {before}{} c {behind} {}", $table, $order))
            }
        }

        impl<'r, R: sqlx::Row> sqlx::FromRow<'r, R> for $name
        where
            usize: sqlx::ColumnIndex<R>,
            $first_type: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
            $($type: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,)*
        {
            fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
                let mut next = 0..;
                let mut position = move || next.next().unwrap_or_default();
                Ok(Self {
                    $first: row.try_get(position())?,
                    $($column: row.try_get(position())?,)*
                })
            }
        }
    };
}
pub(super) use row;

/// Row that can be read from columns of text, in a statement that reads several tables.
pub(super) trait TextRow: Sized {
    /// The table.
    const TABLE: &'static str;
    /// The columns.
    const COLUMNS: &'static [&'static str];

    /// Reads the columns, in their order.
    fn from_texts(texts: impl Iterator<Item = Option<String>>) -> Result<Self, sqlx::Error>;
}

/// Column value that can be read from text.
pub(super) trait TextValue: Sized {
    /// Reads the text. `None` when there is no such value.
    fn from_text(text: Option<String>) -> Option<Self>;
}

impl TextValue for String {
    fn from_text(text: Option<String>) -> Option<Self> {
        text
    }
}

impl TextValue for i64 {
    fn from_text(text: Option<String>) -> Option<Self> {
        text?.parse().ok()
    }
}

impl<T: TextValue> TextValue for Option<T> {
    fn from_text(text: Option<String>) -> Option<Self> {
        match text {
            None => Some(None),
            text => T::from_text(text).map(Some),
        }
    }
}

/// Reads the next column.
pub(super) fn value<T: TextValue>(
    column: &str,
    texts: &mut impl Iterator<Item = Option<String>>,
) -> Result<T, sqlx::Error> {
    let unreadable = || sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: BoxDynError::from("null, or another type than expected"),
    };
    T::from_text(texts.next().flatten()).ok_or_else(unreadable)
}
