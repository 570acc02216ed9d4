//! Metadata values, borrowed from the mapping.

use crate::parse::Cursor;

/// The type of a metadata value, with the format's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say all")]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    pub(crate) fn from_id(id: u32) -> Option<Self> {
        use ValueType as T;
        const ALL: [ValueType; 13] = [
            T::U8,
            T::I8,
            T::U16,
            T::I16,
            T::U32,
            T::I32,
            T::F32,
            T::Bool,
            T::String,
            T::Array,
            T::U64,
            T::I64,
            T::F64,
        ];
        ALL.get(id as usize).copied()
    }

    /// Bytes of a value; `None` for those of varying length.
    pub(crate) fn fixed_bytes(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

/// One metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any integer type.
    Int(i128),
    /// `f32` or `f64`.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string: by the format UTF-8, which files do not always keep to.
    String(&'a [u8]),
    /// An array of one type.
    Array(Array<'a>),
}

/// An array of one type (never of arrays), decoded as it is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    pub(crate) ty: ValueType,
    pub(crate) len: usize,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The type of the elements.
    pub fn ty(&self) -> ValueType {
        self.ty
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (ty, mut cursor) = (self.ty, Cursor::new(self.bytes));
        // Opening the file walked the array, so that no element is missing here.
        (0..self.len).map_while(move |_| cursor.value(ty).ok())
    }

    /// The strings in order; anything else in the array is left out.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.iter().filter_map(|value| match value {
            Value::String(s) => Some(s),
            _ => None,
        })
    }
}

impl Value<'_> {
    /// What it is, in words for an error.
    pub(crate) fn describe(&self) -> String {
        match self {
            Value::Int(n) => format!("the integer {n}"),
            Value::Float(x) => format!("the number {x}"),
            Value::Bool(b) => format!("the boolean {b}"),
            Value::String(s) if std::str::from_utf8(s).is_err() => {
                "a string that is not UTF-8".into()
            }
            Value::String(_) => "a string".into(),
            Value::Array(a) => format!("an array of {} {:?}", a.len, a.ty),
        }
    }
}

/// A Rust type that a value can be read as. Integers of any width are taken where they fit.
pub trait FromValue<'a>: Sized {
    /// What is wanted, in words for an error.
    const WANTED: &'static str;
    /// The value, if it is of the type and in range.
    fn from_value(value: Value<'a>) -> Option<Self>;
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl<'a> FromValue<'a> for $ty {
            const WANTED: &'static str = concat!("an integer of type ", stringify!($ty));
            fn from_value(value: Value<'a>) -> Option<Self> {
                match value {
                    Value::Int(n) => n.try_into().ok(),
                    _ => None,
                }
            }
        }
    )*};
}
integers!(u32, i32, u64, usize);

impl<'a> FromValue<'a> for f32 {
    const WANTED: &'static str = "a number";
    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::Float(x) => Some(x as Self),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for bool {
    const WANTED: &'static str = "a boolean";
    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const WANTED: &'static str = "a string";
    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::String(s) => std::str::from_utf8(s).ok(),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for Array<'a> {
    const WANTED: &'static str = "an array";
    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::Array(a) => Some(a),
            _ => None,
        }
    }
}
