"""The built-in engine: it answers like a ComfyUI 0.3.64 and draws stand-in art, with no model and no GPU.

It owns its own server, queue, cache and nodes, and must not import anything else of `toolkit`: client and engine meet only
through frames recorded from a real server, which both have to satisfy, so that a wrong belief cannot cancel out.
"""
