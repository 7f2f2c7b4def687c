"""Tuples of arrays handed to a kernel by reference: one pointer instead of a hundred words.

A kernel that takes a tuple of arrays counts references to each of them on entry and on exit, with
instructions that lock the bus; where closing one account takes three calls, that is most of the
time, and threads that share a book wait for one another. `lend` puts a tuple on the stack of the
caller once and gives a pointer to it. Fields read as before, nested tuples are lent in turn, and
arrays that come out of it have no count to keep. Whoever lends must keep the arrays alive until
the call returns, as the arguments of a kernel called from Python are. Out of compiled code `lend`
gives back what it was given.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin, lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import register_model, type_callable


class Lent(types.Type):
    """The type of a lent tuple."""

    def __init__(self, of):
        self.of = of
        super().__init__(name=f"Lent({of})")


@register_model(Lent)
class LentModel(models.PrimitiveModel):
    """A pointer to the tuple."""

    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.PointerType(dmm.lookup(fe_type.of).get_value_type()))


def _without_counts(context, builder, kind, value):
    """The same value, of whose arrays nobody counts the references."""
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        array.parent = cgutils.get_null_value(array.parent.type)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        for n in range(len(kind)):
            inner = builder.extract_value(value, n)
            value = builder.insert_value(
                value, _without_counts(context, builder, kind[n], inner), n
            )
    return value


def lend(given: Any) -> Any:
    """A reference to a tuple of arrays, good until the function that lent it returns."""
    return given


@type_callable(lend)
def _kind_of_lent(context):
    return lambda given: given if isinstance(given, Lent) else Lent(given)


@lower_builtin(lend, types.BaseTuple)
def _lend(context, builder, signature, args):
    value = _without_counts(context, builder, signature.args[0], args[0])
    slot = cgutils.alloca_once(builder, value.type)  # of the function that lends
    builder.store(value, slot)
    return slot


@lower_builtin(lend, Lent)
def _lend_on(context, builder, signature, args):
    return args[0]


@infer_getattr
class LentFields(AttributeTemplate):
    """Fields of what is lent; a tuple among them is lent too."""

    key = Lent

    def generic_resolve(self, lent, name):
        """The type of field `name`."""
        if name not in lent.of.fields:
            return None
        kind = lent.of[lent.of.fields.index(name)]
        return Lent(kind) if isinstance(kind, types.BaseNamedTuple) else kind


@lower_getattr_generic(Lent)
def _field(context, builder, kind, value, name):
    n = kind.of.fields.index(name)
    inner = kind.of[n]
    index = [ir.IntType(32)(0), ir.IntType(32)(n)]
    at = builder.gep(value, index, inbounds=True, source_etype=context.get_value_type(kind.of))
    if isinstance(inner, types.BaseNamedTuple):
        return builder.bitcast(at, context.get_value_type(Lent(inner)))
    found = builder.load(at, typ=context.get_value_type(inner))
    return _without_counts(context, builder, inner, found)
