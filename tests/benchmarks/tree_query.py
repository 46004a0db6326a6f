"""The query of the tree, for this server and the plain one."""

INSTANCES = 2000
SERIES = 4

TREE = """query Tree($uid: String!) { study(studyInstanceUID: $uid) { studyDate
  series { seriesNumber modality instances { sopInstanceUID instanceNumber rows columns
    windowCenter windowWidth numberOfFrames frame { url } } } } }"""
