"""The compiler turns a graph into a plan of fragments: pure, deterministic, linear in nodes and edges."""

from orchestrator.compiler.fragments import Fragment, FragmentSpec, Item, NodeInfo, Par, Seq, decode_fragment, encode_fragment
from orchestrator.compiler.plan import Plan, Statistics, compile_plan

__all__ = [
    "Fragment",
    "FragmentSpec",
    "Item",
    "NodeInfo",
    "Par",
    "Plan",
    "Seq",
    "Statistics",
    "compile_plan",
    "decode_fragment",
    "encode_fragment",
]
