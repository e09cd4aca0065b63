"""The built-in engine: it answers like a ComfyUI 0.3.64 and draws stand-in art, with no model and no GPU.

It has the classes that the graphs of every model family use, and model files by name only; what 0.3.64 lacked and was only read
in newer source stands apart (catalog_newer.json) and can be left out. It owns its own server, queue, cache and nodes, and must
not import anything else of `toolkit`: client and engine meet only through frames recorded from a real server, which both have to
satisfy, so that a wrong belief cannot cancel out.
"""
