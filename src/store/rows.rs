//! Row structs: the struct lists the columns, and the statement that reads them is made from the list.

use sqlx::error::BoxDynError;

/// Reads the columns of a row, in their order, by a method of the row.
macro_rules! columns {
    ($row:ident.$get:ident { $($column:ident),* }) => {{
        let mut next = 0..;
        let mut position = move || next.next().unwrap_or_default();
        Ok(Self { $($column: $row.$get(position())?,)* })
    }};
}
pub(super) use columns;

/// Reads a row by the positions of its columns. To look up their names takes longer, and a load reads millions of rows.
macro_rules! read_by_position {
    ($row:ty { $($column:ident: $type:ty),* }) => {
        impl<'r, R: sqlx::Row> sqlx::FromRow<'r, R> for $row
        where
            usize: sqlx::ColumnIndex<R>,
            $($type: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,)*
        {
            fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
                $crate::store::rows::columns!(row.try_get { $($column),* })
            }
        }
    };
}
pub(super) use read_by_position;

/// Defines the row struct of a table, with the order in which rows are read.
macro_rules! row {
    ($(#[$meta:meta])* $name:ident of $table:literal by $order:literal { $first:ident: $first_type:ty $(, $column:ident: $type:ty)* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(super) struct $name {
            pub(super) $first: $first_type,
            $(pub(super) $column: $type,)*
        }

        impl $name {
            /// Returns the statement that reads the rows from the table, named `c`, with a condition.
            pub(super) fn select(condition: &str) -> sqlx::AssertSqlSafe<String> {
                const COLUMNS: &str = concat!("c.", stringify!($first) $(, ", c.", stringify!($column))*);
                sqlx::AssertSqlSafe(format!("select {COLUMNS} from {} c {condition} {}", $table, $order))
            }
        }

        $crate::store::rows::read_by_position!($name { $first: $first_type $(, $column: $type)* });
    };
}
pub(super) use row;

/// Defines the row struct of a table whose texts stay where they were received: a load copies none. The rows can also be
/// read from columns of text, in a statement that reads several tables.
macro_rules! borrowed_row {
    ($(#[$meta:meta])* $name:ident of $table:literal by $order:literal { $first:ident: $first_type:ty $(, $column:ident: $type:ty)* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Hash)]
        pub(super) struct $name<'r> {
            pub(super) $first: $first_type,
            $(pub(super) $column: $type,)*
        }

        impl<'r> $crate::store::rows::BorrowedRow<'r> for $name<'r> {
            const TABLE: &'static str = $table;
            const ORDER: &'static str = $order;
            const COLUMNS: &'static [&'static str] = &[stringify!($first) $(, stringify!($column))*];

            fn from_texts(texts: &'r [Option<String>]) -> Result<Self, sqlx::Error> {
                let mut texts = texts.iter().map(Option::as_deref);
                Ok(Self {
                    $first: $crate::store::rows::value(stringify!($first), &mut texts)?,
                    $($column: $crate::store::rows::value(stringify!($column), &mut texts)?,)*
                })
            }
        }

        $crate::store::rows::read_by_position!($name<'r> { $first: $first_type $(, $column: $type)* });

        impl<'r, R: sqlx::Row> $crate::store::rows::TypedRow<'r, R> for $name<'r>
        where
            usize: sqlx::ColumnIndex<R>,
            $first_type: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
            $($type: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,)*
        {
            fn fits(row: &R) -> bool {
                use sqlx::{Column as _, Type};
                let mut columns = row.columns().iter();
                columns.next().is_some_and(|column| <$first_type as Type<R::Database>>::compatible(column.type_info()))
                    $(&& columns.next().is_some_and(|column| <$type as Type<R::Database>>::compatible(column.type_info())))*
            }

            fn read_typed(row: &'r R) -> Result<Self, sqlx::Error> {
                $crate::store::rows::columns!(row.try_get_unchecked { $first $(, $column)* })
            }
        }
    };
}
pub(super) use borrowed_row;

/// Row whose values are read without a look at the type of each, once the types of the columns are known.
pub(super) trait TypedRow<'r, R: sqlx::Row>: sqlx::FromRow<'r, R> {
    /// Whether the columns have the types that the row needs.
    fn fits(row: &R) -> bool;

    /// Reads a row whose columns have these types.
    fn read_typed(row: &'r R) -> Result<Self, sqlx::Error>;
}

/// Row of a database.
pub(super) trait DatabaseRow: sqlx::Row {
    /// Whether all values of a column have the column's type. In SQLite each value has a type of its own.
    const COLUMNS_HAVE_TYPES: bool;
}

impl DatabaseRow for sqlx::postgres::PgRow {
    const COLUMNS_HAVE_TYPES: bool = true;
}

impl DatabaseRow for sqlx::sqlite::SqliteRow {
    const COLUMNS_HAVE_TYPES: bool = false;
}

/// Reader of the rows of one statement, of which a load reads millions: the types of columns are looked at once.
#[derive(Debug, Default)]
pub(super) struct RowReader {
    fits: Option<bool>,
}

impl RowReader {
    /// Reads the next row.
    pub(super) fn read<'r, T: TypedRow<'r, R>, R: DatabaseRow>(&mut self, row: &'r R) -> Result<T, sqlx::Error> {
        let fits = self.fits.get_or_insert_with(|| R::COLUMNS_HAVE_TYPES && T::fits(row));
        if *fits { T::read_typed(row) } else { T::from_row(row) }
    }
}

/// Row whose texts are borrowed.
pub(super) trait BorrowedRow<'r>: Sized {
    /// The table.
    const TABLE: &'static str;
    /// The order in which rows are read: by client first.
    const ORDER: &'static str;
    /// The columns.
    const COLUMNS: &'static [&'static str];

    /// Reads the columns, in their order.
    fn from_texts(texts: &'r [Option<String>]) -> Result<Self, sqlx::Error>;

    /// Returns the columns of the table, named `c`.
    fn columns() -> String {
        let columns: Vec<String> = Self::COLUMNS.iter().map(|column| format!("c.{column}")).collect();
        columns.join(", ")
    }

    /// Returns the statement that reads the rows from the table, named `c`, with a condition.
    fn select(condition: &str) -> sqlx::AssertSqlSafe<String> {
        let (columns, table, order) = (Self::columns(), Self::TABLE, Self::ORDER);
        sqlx::AssertSqlSafe(format!("select {columns} from {table} c {condition} {order}"))
    }
}

/// Column value that can be read from text.
pub(super) trait TextValue<'r>: Sized {
    /// Reads the text. `None` when there is no such value.
    fn from_text(text: Option<&'r str>) -> Option<Self>;
}

impl<'r> TextValue<'r> for &'r str {
    fn from_text(text: Option<&'r str>) -> Option<Self> {
        text
    }
}

impl TextValue<'_> for i64 {
    fn from_text(text: Option<&str>) -> Option<Self> {
        text?.parse().ok()
    }
}

impl<'r, T: TextValue<'r>> TextValue<'r> for Option<T> {
    fn from_text(text: Option<&'r str>) -> Option<Self> {
        match text {
            None => Some(None),
            text => T::from_text(text).map(Some),
        }
    }
}

/// Reads the next column.
pub(super) fn value<'r, T: TextValue<'r>>(
    column: &str,
    texts: &mut impl Iterator<Item = Option<&'r str>>,
) -> Result<T, sqlx::Error> {
    let unreadable = || sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: BoxDynError::from("null, or another type than expected"),
    };
    T::from_text(texts.next().flatten()).ok_or_else(unreadable)
}
