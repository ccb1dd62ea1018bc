"""Forget: take pairs out of everything that a corpus holds, and keep them from coming back."""

from stylear.curate.forget.forget import ForgetResult, finish_forget, forget_pairs

__all__ = ["ForgetResult", "finish_forget", "forget_pairs"]
