"""What attaching and undoing quantizers must bring back."""


def identity(model):
    """Everything that attaching and undoing must bring back, down to orders and identities."""
    return {
        path: (
            type(m), m.training, list(vars(m)), [(n, id(p)) for n, p in m._parameters.items()], [(n, id(c)) for n, c in m._modules.items()],
            list(m._forward_pre_hooks.items()), list(m._forward_pre_hooks_with_kwargs.items()), list(m._forward_hooks.items()),
        )
        for path, m in model.named_modules(remove_duplicate=False)
    }  # fmt: skip
