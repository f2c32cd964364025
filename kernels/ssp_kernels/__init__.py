"""Recurrences as operators: tensors in, tensors out.

Each operator is a folder with one public signature and one file per form (`reference`, `torch_form`, and where they pay
`native_form` and `triton_form`); `registry` picks the form.

Shape suffixes: B batch, L length, D features, N states of a feature, K convolution width.
"""
